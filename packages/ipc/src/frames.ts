/** Framing of a byte stream: four bytes big-endian length, then that many bytes of MessagePack. */
import { pack, unpack } from 'msgpackr';

/** Bytes of a frame's content. Pictures travel as files, so that the largest message is a page of jobs. */
export const FRAME_MAX = 16 << 20;

export function encodeFrame(message: unknown): Buffer {
  const content = pack(message);
  if (content.length > FRAME_MAX) throw new RangeError(`a message of ${content.length} bytes is too long`);
  const frame = Buffer.allocUnsafe(4 + content.length);
  frame.writeUInt32BE(content.length);
  content.copy(frame, 4);
  return frame;
}

/** Collects chunks of a stream and gives whole messages. Linear in the bytes received, whatever their chunks. */
export class FrameDecoder {
  #chunks: Buffer[] = [];
  #buffered = 0;

  /**
   * Messages that `chunk` completes. @throws RangeError for a frame beyond FRAME_MAX, Error for content that is not
   * MessagePack
   */
  push(chunk: Buffer): unknown[] {
    this.#chunks.push(chunk);
    this.#buffered += chunk.length;
    const messages: unknown[] = [];
    for (;;) {
      if (this.#buffered < 4) return messages;
      const length = this.#peek(4).readUInt32BE();
      if (length > FRAME_MAX) throw new RangeError(`a frame of ${length} bytes is too long`);
      if (this.#buffered < 4 + length) return messages;
      this.#take(4);
      messages.push(unpack(this.#take(length)));
    }
  }

  #peek(count: number): Buffer {
    if ((this.#chunks[0] as Buffer).length < count) this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0] as Buffer;
  }

  #take(count: number): Buffer {
    const first = this.#peek(count);
    this.#buffered -= count;
    if (first.length === count) this.#chunks.shift();
    else this.#chunks[0] = first.subarray(count);
    return first.subarray(0, count);
  }
}
