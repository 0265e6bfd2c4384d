/** Streams over a real connection, with clients that read slowly, not at all, or are gone. */
import { createServer } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { EventStream, type StreamLimits } from '@qwen-supervisor/api/event-stream';
import type { FastifyReply } from 'fastify';
import { expect, onTestFinished, test } from 'vitest';
import { until } from '../system/product.js';

const UNBOUNDED = { pendingMax: Number.POSITIVE_INFINITY };

/** A server whose answer is what `use` makes of a stream; gives a client's connection, which has sent its request. */
async function connected(use: (stream: EventStream) => void, limits?: StreamLimits) {
  const ended = { count: 0 };
  const server = createServer((_request, raw) => {
    const reply = { raw, hijack() {}, getHeaders: () => ({}) } as unknown as FastifyReply;
    use(new EventStream(reply, () => ended.count++, limits));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const socket: Socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  socket.on('error', () => {});
  socket.write('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n');
  onTestFinished(() => {
    socket.destroy();
    server.close();
  });
  return { socket, ended };
}

function readAll(socket: Socket): Promise<number> {
  let bytes = 0;
  socket.on('data', (chunk) => {
    bytes += chunk.length;
  });
  return new Promise((resolve) => socket.on('close', () => resolve(bytes)));
}

test('events that are larger than any buffer, all at once, reach who reads', async () => {
  const large = 'x'.repeat(5 << 20);
  const { socket, ended } = await connected((stream) => {
    for (let i = 0; i < 4; i++) stream.send('picture', large);
    stream.end();
  }, UNBOUNDED);
  expect(await readAll(socket)).toBeGreaterThan(20 << 20);
  expect(ended.count).toBe(1);
});

test('a text is not cut in the middle of a character, wherever it is cut', async () => {
  const { socket } = await connected((stream) => {
    for (const before of ['', 'x', 'xx', 'xxx']) stream.send('prompt', before + '🦊'.repeat(40_000));
    stream.end();
  }, UNBOUNDED);
  const chunks: Buffer[] = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  await readAll(socket);
  // Without the borders of the chunks that HTTP makes.
  const bytes = Buffer.concat(chunks)
    .toString('latin1')
    .replace(/\r\n[0-9a-f]+\r\n/g, '');
  const text = Buffer.from(bytes, 'latin1').toString('utf8');
  expect(text.match(/🦊/gu)).toHaveLength(160_000);
  expect(text).not.toContain('\ufffd');
});

test('who does not read is dropped when too much waits for it', async () => {
  const { socket, ended } = await connected((stream) => {
    for (let i = 0; i < 100; i++) stream.send('event', 'x'.repeat(1 << 20));
  });
  socket.pause();
  await until(async () => (ended.count === 1 ? true : null));
});

test('who reads slowly is waited for, many heartbeats long; who stops reading is dropped', async () => {
  const { socket, ended } = await connected((stream) => stream.send('picture', 'x'.repeat(64 << 20)), {
    ...UNBOUNDED,
    heartbeatMs: 300,
  });
  let [bytes, reads] = [0, true];
  socket.on('data', (chunk) => {
    bytes += chunk.length;
    socket.pause();
    setTimeout(() => reads && socket.resume(), 5);
  });
  await until(async () => (bytes > 8 << 20 ? true : null));
  expect(ended.count, 'it reads').toBe(0);
  reads = false;
  await until(async () => (ended.count === 1 ? true : null));
});

test('nothing is said after the end, however late somebody has something to say', async () => {
  let late: EventStream | undefined;
  const { socket, ended } = await connected((stream) => {
    late = stream;
    stream.send('event', 'x'.repeat(8 << 20));
    stream.end();
  });
  socket.pause();
  await until(async () => (ended.count === 1 ? true : null));
  late?.send('event', 'late');
  late?.end();
  socket.resume();
  expect(await readAll(socket)).toBeLessThan(9 << 20);
  late?.send('event', 'later');
  expect(ended.count).toBe(1);
});

test('a client that left before the stream was made leaves nothing behind', async () => {
  let made = 0;
  const ended: number[] = [];
  const server = createServer((_request, raw) => {
    raw.on('close', () => {
      const reply = { raw, hijack() {}, getHeaders: () => ({}) } as unknown as FastifyReply;
      const stream = new EventStream(reply, () => ended.push(1));
      made++;
      stream.send('event', 'to nobody');
      stream.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  socket.write('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n');
  setTimeout(() => socket.destroy(), 50);
  await until(async () => (made === 1 && ended.length === 1 ? true : null));
});
