import { encodeFrame, FRAME_MAX, FrameDecoder } from '@qwen-supervisor/ipc/frames';
import fc from 'fast-check';
import { expect, test } from 'vitest';

// MessagePack's decoder renames the key `__proto__`, which no message of ours has.
const key = fc.string().filter((text) => text !== '__proto__');

const message = fc.record({
  method: fc.string(),
  params: fc.dictionary(key, fc.oneof(fc.integer(), fc.string())),
});

test('messages arrive whole and in order, however the stream is cut', () => {
  fc.assert(
    fc.property(fc.array(message), fc.array(fc.integer({ min: 1, max: 50 })), (messages, cuts) => {
      const stream = Buffer.concat(messages.map(encodeFrame));
      const decoder = new FrameDecoder();
      const received: unknown[] = [];
      let at = 0;
      for (const cut of [...cuts, stream.length]) {
        received.push(...decoder.push(stream.subarray(at, at + cut)));
        at = Math.min(stream.length, at + cut);
      }
      if (at < stream.length) received.push(...decoder.push(stream.subarray(at)));
      expect(received).toEqual(messages);
    }),
  );
});

test('a frame that announces more than the limit is refused before its content is stored', () => {
  const header = Buffer.alloc(4);
  header.writeUInt32BE(FRAME_MAX + 1);
  expect(() => new FrameDecoder().push(header)).toThrow(RangeError);
});
