import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Job } from '@qwen-supervisor/protocol/job';
import { afterEach, describe, expect, test } from 'vitest';
import { cli, type Product, startProduct, until } from './product.js';

const FOX = { prompt: 'a fox', seed: 1, numInferenceSteps: 2 };
/** Long enough to keep the worker busy while the queue is looked at. */
const LONG = { ...FOX, numInferenceSteps: 1000 };

let product: Product;
afterEach(() => product.clean());

/** Starts the product with its worker busy. */
async function busy(args: string[] = []): Promise<Job> {
  product = await startProduct(args);
  const job = await product.submit(LONG);
  await until(async () => ((await product.job(job.id)).step > 0 ? true : null));
  return job;
}

const cancel = (id: string) => product.call(`/api/v1/jobs/${id}/cancel`, {});

test('higher priorities go first, by HTTP and by command', async () => {
  const running = await busy();
  const low = await product.submit({ ...FOX, priority: -1 });
  const normal = await product.submit(FOX);
  const high = await product.submit({ ...FOX, priority: 5 });
  const output = join(product.dataDir, 'highest.png');
  const generated = cli([
    'generate',
    'a fox',
    '--steps',
    '2',
    '--priority',
    '6',
    '-o',
    output,
    '--data-dir',
    product.dataDir,
  ]);
  await until(async () => ((await product.status()).queue.queued === 4 ? true : null));
  await cancel(running.id);
  expect(await generated).toMatchObject({ code: 0 });
  const ended = [];
  for (const { id } of [high, normal, low]) ended.push((await product.ended(id)).finishedAt ?? '');
  expect(ended).toEqual([...ended].sort());
  expect((await product.job(high.id)).priority).toBe(5);
  expect(await product.call('/api/v1/jobs', { ...FOX, priority: 101 })).toMatchObject({ status: 400 });
});

test('a full queue answers 429 with a Retry-After, takes several pictures or none, and takes again when there is room', async () => {
  const running = await busy(['--max-queued', '2']);
  await product.submit(FOX);
  const n = await product.call('/v1/images/generations', { prompt: 'a', n: 2 });
  expect(n).toMatchObject({ status: 429, json: { error: { code: 'QUEUE_FULL' } } });
  expect((await product.status()).queue.queued).toBe(1);
  await product.submit(FOX);
  const full = await product.call('/api/v1/jobs', FOX);
  expect(full).toMatchObject({ status: 429, json: { error: { code: 'QUEUE_FULL' } } });
  expect(Number(full.headers.get('retry-after'))).toBeGreaterThan(0);
  await cancel(running.id);
  await until(async () => ((await product.call('/api/v1/jobs', FOX)).status === 202 ? true : null));
});

test('a cancelled job is tried again as a new one, a running and a done one are not', async () => {
  const running = await busy();
  expect(await product.call(`/api/v1/jobs/${running.id}/retry`, {})).toMatchObject({
    status: 409,
    json: { error: { code: 'JOB_NOT_RETRYABLE' } },
  });
  const waiting = await product.submit({ ...FOX, priority: 3 });
  await cancel(waiting.id);
  await cancel(running.id);
  const { status, json } = await product.call(`/api/v1/jobs/${waiting.id}/retry`, {});
  expect(status).toBe(202);
  expect(json).toMatchObject({ ...FOX, retryOf: waiting.id, priority: 3 });
  const again = await product.ended((json as Job).id);
  expect(again.status).toBe('done');
  expect(await product.job(waiting.id)).toMatchObject({ status: 'cancelled' });
  expect(await product.call(`/api/v1/jobs/${again.id}/retry`, {})).toMatchObject({ status: 409 });
  expect(await product.call('/api/v1/jobs/nope/retry', {})).toMatchObject({ status: 404 });
});

describe('the header Idempotency-Key', () => {
  test('covers a request for several pictures, and a drawn seed', async () => {
    product = await startProduct();
    const ask = () =>
      product.call('/v1/images/generations', { prompt: 'a', n: 2, num_inference_steps: 1 }, { 'idempotency-key': 'k' });
    const [first, second] = [await ask(), await ask()];
    expect(second.headers.get('x-job-id')).toBe(first.headers.get('x-job-id'));
    expect(second.json).toMatchObject({ data: (first.json as { data: unknown }).data });
  });

  test.each(['', 'with a blank', 'x'.repeat(256)])('is refused when it is %j', async (key) => {
    product = await startProduct();
    expect(await product.call('/api/v1/jobs', FOX, { 'idempotency-key': key })).toMatchObject({
      status: 400,
      json: { error: { code: 'REQUEST_INVALID', message: expect.stringContaining('Idempotency-Key') } },
    });
  });
});

test('finished jobs beyond the bytes that are to be kept are removed with their pictures, oldest first', async () => {
  // Each picture has some 40 kB; the newest ten stay whatever they have.
  product = await startProduct(['--keep-gigabytes', '0.0001']);
  const ids: string[] = [];
  for (let i = 0; i < 12; i++) ids.push((await product.ended((await product.submit({ ...FOX, seed: i })).id)).id);
  const file = (id: string | undefined) => join(product.dataDir, 'images', `${id}.png`);
  await until(async () => (existsSync(file(ids[0])) ? null : true));
  expect(await product.call(`/api/v1/jobs/${ids[0]}`)).toMatchObject({ status: 404 });
  expect(existsSync(file(ids[11]))).toBe(true);
  expect(await product.job(ids[11] as string)).toMatchObject({ status: 'done' });
});
