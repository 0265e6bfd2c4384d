import { PassThrough } from 'node:stream';
import { BodyBudget, receive } from '@qwen-supervisor/api/bodies/receive';
import type { FastifyRequest } from 'fastify';
import { expect, test } from 'vitest';

const MEGABYTE = 1 << 20;
const request = (budget: BodyBudget) => ({ received: budget.open() }) as FastifyRequest;

test('a body costs what has come of it, not what was announced, and nothing once it is let go', async () => {
  const budget = new BodyBudget(MEGABYTE);
  const first = request(budget);
  first.received.take(200 * MEGABYTE);
  expect(() => budget.open().take(100 * MEGABYTE)).toThrow(expect.objectContaining({ code: 'SERVER_BUSY' }));
  first.received.release();
  first.received.release();
  budget.open().take(256 * MEGABYTE);
});

test('a body beyond its limit, beyond the budget, or cut off, is refused for that', async () => {
  const over = async (budget: BodyBudget, max: number, send: (stream: PassThrough) => void) => {
    const stream = new PassThrough();
    const received = receive(stream, request(budget), max);
    send(stream);
    return received.then(
      (bytes) => bytes.length,
      (error) => error.code,
    );
  };
  const full = new BodyBudget(MEGABYTE);
  full.open().take(256 * MEGABYTE);
  expect(await over(new BodyBudget(9), 3, (stream) => stream.end('1234'))).toBe('BODY_TOO_LARGE');
  expect(await over(full, MEGABYTE, (stream) => stream.end(Buffer.alloc(100 << 10)))).toBe('SERVER_BUSY');
  expect(await over(full, 9, (stream) => stream.end('1234')), 'what is small finds a place').toBe(4);
  expect(await over(new BodyBudget(9), 9, (stream) => stream.write('12') && stream.destroy())).toBe('BODY_INVALID');
  expect(await over(new BodyBudget(9), 9, (stream) => stream.end('1234'))).toBe(4);
});
