/** Pictures that take long, over real connections. */
import { answerPatiently } from '@qwen-supervisor/api/patience';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import fastify from 'fastify';
import { expect, onTestFinished, test } from 'vitest';

async function serve(work: () => Promise<object>, beginMs: number): Promise<string> {
  const app = fastify();
  onTestFinished(() => void app.close());
  app.get('/v1/x', (request, reply) => answerPatiently(request, reply.header('x-seed', '7'), work(), beginMs));
  return `${await app.listen({ port: 0, host: '127.0.0.1' })}/v1/x`;
}

const after = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test('an answer that comes soon is as any other, and an error has its status', async () => {
  const soon = await fetch(await serve(async () => ({ a: 1 }), 60_000));
  expect([soon.status, await soon.text()]).toEqual([200, '{"a":1}']);
  const failed = await fetch(
    await serve(async () => {
      throw Object.assign(new Error('no'), { statusCode: 503 });
    }, 60_000),
  );
  expect(failed.status).toBe(503);
});

test('one that takes long begins before its client gives up, and is the same JSON', async () => {
  let isDone = false;
  const work = async () => {
    await after(300);
    isDone = true;
    return { a: 1 };
  };
  const url = await serve(work, 20);
  const response = await fetch(url);
  expect([response.status, response.headers.get('x-seed'), isDone]).toEqual([200, '7', false]);
  expect(await response.json()).toEqual({ a: 1 });
});

test('what fails then is told in the words of the dialect', async () => {
  const url = await serve(async () => {
    await after(100);
    throw new CodedError('JOB_CANCELLED');
  }, 20);
  expect(await (await fetch(url)).json()).toMatchObject({ error: { code: 'JOB_CANCELLED' } });
});
