import { get } from 'node:http';
import { afterEach, describe, expect, test } from 'vitest';
import { cli, isAlive, type Product, startProduct, until } from './product.js';

const LONG = { prompt: 'a fox on a teal background', seed: 11, numInferenceSteps: 60 };

let product: Product;
afterEach(() => product.clean());

/** Submits a job and waits until it is in the middle of its picture. */
async function drawing(request: object = LONG): Promise<string> {
  const { id } = await product.submit(request);
  await until(async () => ((await product.job(id)).step >= 5 ? true : null));
  return id;
}

function statusOfNewConnection(path: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    get(product.url + path, { agent: false }, (response) => resolve(response.resume().statusCode)).on('error', reject);
  });
}

async function undisturbed(): Promise<string | undefined> {
  return (await product.ended((await product.submit(LONG)).id)).images[0]?.sha256;
}

describe('a worker that is killed', () => {
  test('in the middle of a picture and between two comes back, and the picture is the same', async () => {
    product = await startProduct();
    const id = await drawing();
    process.kill(await product.pidOf('inference'), 'SIGKILL');
    const job = await product.ended(id);
    expect(job).toMatchObject({ status: 'done', attempts: 2 });
    process.kill(await product.pidOf('inference'), 'SIGKILL');
    expect(await undisturbed()).toBe(job.images[0]?.sha256);
    const { children } = await product.status();
    expect(children[0]).toMatchObject({ name: 'inference', restarts: 2, lastExit: { signal: 'SIGKILL', code: null } });
  });

  test('and one that is stopped by a signal is found by its silence', async () => {
    product = await startProduct(['--beat-limit-seconds', '3']);
    const id = await drawing();
    process.kill(await product.pidOf('inference'), 'SIGSTOP');
    expect(await product.ended(id)).toMatchObject({ status: 'done', attempts: 2 });
  });
});

test('a cancel holds even if the worker dies before it can obey', async () => {
  product = await startProduct();
  const id = await drawing({ ...LONG, numInferenceSteps: 1000 });
  const pid = await product.pidOf('inference');
  process.kill(pid, 'SIGSTOP');
  await product.call(`/api/v1/jobs/${id}/cancel`, {});
  process.kill(pid, 'SIGKILL');
  expect(await product.ended(id)).toMatchObject({ status: 'cancelled', attempts: 1 });
});

test('a job that brings the worker down twice is failed, and the others are served', async () => {
  product = await startProduct();
  const poison = await drawing({ ...LONG, numInferenceSteps: 1000 });
  const good = await product.submit({ ...LONG, numInferenceSteps: 2 });
  process.kill(await product.pidOf('inference'), 'SIGSEGV');
  await until(async () => {
    const job = await product.job(poison);
    return job.attempts === 2 && job.step >= 5 ? true : null;
  });
  process.kill(await product.pidOf('inference'), 'SIGABRT');
  expect(await product.ended(poison)).toMatchObject({ status: 'failed', attempts: 2, error: { code: 'JOB_POISONED' } });
  expect(await product.ended(good.id)).toMatchObject({ status: 'done' });
});

test('an API that is killed comes back on the same port, and nobody is refused', async () => {
  product = await startProduct();
  await product.ready();
  const pid = await product.pidOf('api');
  process.kill(pid, 'SIGKILL');
  await until(async () => (isAlive(pid) ? null : true));
  // The kernel holds new connections until the next API takes them.
  expect(await Promise.all(Array.from({ length: 20 }, () => statusOfNewConnection('/healthz')))).toEqual(
    Array(20).fill(200),
  );
  const { children } = await until(async () => {
    const status = await product.status();
    return status.children[1]?.restarts === 1 ? status : null;
  });
  expect(children).toMatchObject([{ restarts: 0 }, { name: 'api', restarts: 1, state: 'ready' }]);
});

test('when the supervisor is killed no process is left after a second, and its jobs go on at the next start', async () => {
  product = await startProduct();
  const id = await drawing();
  const pids = [await product.pidOf('inference'), await product.pidOf('api')];
  product.process.kill('SIGKILL');
  await product.exited;
  const deadline = Date.now() + 1000;
  await until(async () => (pids.some(isAlive) && Date.now() < deadline ? null : true));
  expect(pids.filter(isAlive)).toEqual([]);

  const first = product;
  product = await startProduct([], first.dataDir);
  const job = await product.ended(id);
  expect(job).toMatchObject({ status: 'done', attempts: 2 });
  expect(await undisturbed()).toBe(job.images[0]?.sha256);
});

describe('a stop', () => {
  test.each(['SIGINT', 'SIGTERM'] as const)(
    'by %s in the middle of a picture ends all processes, with exit code 0',
    async (signal) => {
      product = await startProduct();
      const id = await drawing({ ...LONG, numInferenceSteps: 1000 });
      const pids = [await product.pidOf('inference'), await product.pidOf('api')];
      product.process.kill(signal);
      // A terminal, npm and a shell deliver the same Ctrl+C more than once.
      product.process.kill(signal);
      expect(await product.exited).toMatchObject({ code: 0, stderr: '' });
      expect(pids.filter(isAlive)).toEqual([]);
      const first = product;
      product = await startProduct([], first.dataDir);
      expect(await product.job(id)).toMatchObject({ status: expect.stringMatching(/^(queued|running)$/) });
    },
  );

  test('by command does the same, also while the model loads', async () => {
    product = await startProduct();
    expect(await cli(['stop', '--data-dir', product.dataDir])).toMatchObject({ code: 0, stdout: 'stopped\n' });
    expect(await product.exited).toMatchObject({ code: 0 });
    expect(await cli(['stop', '--data-dir', product.dataDir])).toMatchObject({
      code: 74,
      stderr: expect.stringContaining('NOT_RUNNING'),
    });
  });
});
