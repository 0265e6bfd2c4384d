/** Several devices: a worker for each, one queue, and a fault of one is nobody else's. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { SnapshotAnswer } from '@qwen-supervisor/protocol/answers';
import type { Job } from '@qwen-supervisor/protocol/job';
import type { WorkerName } from '@qwen-supervisor/protocol/status';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { POCKET, REPOSITORY, temporaryFolder } from '../fixture-files.js';
import { cli, type Product, startProduct, until } from './product.js';

const FOX = { prompt: 'a fox', seed: 1, numInferenceSteps: 30 };
const OWL = { prompt: 'an owl', seed: 2, numInferenceSteps: 30 };
/** Long enough to be looked at, killed and cancelled in. */
const LONG = { ...FOX, numInferenceSteps: 1000 };

const workerOf = async (product: Product, name: WorkerName) =>
  (await product.status()).children.find((child) => child.name === name);
const allReady = (product: Product) =>
  until(async () => {
    const workers = (await product.status()).children.filter(({ name }) => name !== 'api');
    return workers.every(({ state }) => state === 'ready') ? workers : null;
  });
/** Resolves when both workers draw; gives their jobs, that of the first worker first. */
async function bothDraw(product: Product): Promise<[Job, Job]> {
  const snapshot = await until(async () => {
    const { json } = await product.call('/api/v1/snapshot');
    const { running } = json as SnapshotAnswer;
    return running.length === 2 && running.every(({ step }) => step > 2) ? running : null;
  });
  return snapshot as [Job, Job];
}
const cancel = (product: Product, id: string) => product.call(`/api/v1/jobs/${id}/cancel`, {});
const sha256 = ({ images }: Job) => images[0]?.sha256;

describe('two workers', () => {
  let product: Product;
  const reference = new Map<string, string | undefined>();
  beforeAll(async () => {
    // One alone, with as many threads as each of two has here.
    const alone = await startProduct(['--device', 'cpu', '--threads', '1']);
    for (const wish of [FOX, OWL]) reference.set(wish.prompt, sha256(await alone.ended((await alone.submit(wish)).id)));
    await alone.clean();
    product = await startProduct(['--device', 'cpu,cpu', '--threads', '1']);
    await allReady(product);
  });
  afterAll(() => product.clean());

  test('draw two pictures at a time, each the same bytes as one worker alone', async () => {
    const jobs = await Promise.all([FOX, OWL, FOX, OWL].map((wish) => product.submit(wish)));
    const ended = await Promise.all(jobs.map(({ id }) => product.ended(id)));
    expect(ended.map(sha256)).toEqual([FOX, OWL, FOX, OWL].map(({ prompt }) => reference.get(prompt)));
    const { stdout } = await cli(['events', '--data-dir', product.dataDir]);
    const story = stdout.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line).type]));
    const [first] = [story.indexOf('done')];
    expect(story.slice(0, first).filter((type) => type === 'running').length, 'begun before one was done').toBe(2);
  });

  test('of one that is killed the picture goes on at its step, the other is not disturbed', async () => {
    const [a, b] = [await product.submit(LONG), await product.submit(LONG)];
    const [, second] = await bothDraw(product);
    const other = second.id === a.id ? b : a;
    process.kill(await product.pidOf('inference-2'), 'SIGKILL');
    const resumed = await until(async () => {
      const job = await product.job(second.id);
      return job.attempts === 2 && job.resumedAtStep !== null ? job : null;
    });
    expect(resumed.resumedAtStep).toBeGreaterThanOrEqual(second.step);
    expect(await product.job(other.id)).toMatchObject({ status: 'running', attempts: 1 });
    expect(await workerOf(product, 'inference')).toMatchObject({ restarts: 0 });
    expect(await workerOf(product, 'inference-2')).toMatchObject({ restarts: 1, lastExit: { signal: 'SIGKILL' } });
    const { json } = await product.call('/api/v1/snapshot');
    expect((json as SnapshotAnswer).crashes[0]).toMatchObject({ child: 'inference-2', job: { id: second.id } });
    for (const { id } of [a, b]) await cancel(product, id);
    for (const { id } of [a, b]) await product.ended(id);
  });

  test('a picture that was interrupted by a death comes out the same, whoever goes on with it', async () => {
    await allReady(product);
    const { id } = await product.submit({ ...FOX });
    await until(async () => ((await product.job(id)).step > 3 ? true : null));
    const { children } = await product.status();
    const holder = children.find(({ job }) => job === id);
    if (holder?.pid) process.kill(holder.pid, 'SIGKILL');
    expect(sha256(await product.ended(id))).toBe(reference.get(FOX.prompt));
  });

  test('all that is drawn is shown, and can be cancelled at once', async () => {
    await allReady(product);
    await Promise.all([product.submit(LONG), product.submit(LONG)]);
    const jobs = await bothDraw(product);
    const status = await product.status();
    expect(status.queue).toMatchObject({ running: 2, queued: 0 });
    expect(status.children.map(({ name, state, job }) => [name, state, job])).toEqual([
      ['inference', 'busy', jobs[0].id],
      ['inference-2', 'busy', jobs[1].id],
      ['api', 'ready', null],
    ]);
    const lines = (await cli(['status', '--data-dir', product.dataDir])).stdout;
    expect(lines).toMatch(/^inference-2 +busy +pid \d+, on cpu/m);
    expect(await (await product.fetch('/metrics')).text()).toMatch(/child_state\{child="inference-2",state="busy"\} 1/);
    expect((await product.call('/api/v1/jobs/cancel', { scope: 'running' })).json).toEqual({ cancelled: 2 });
    for (const { id } of jobs) expect(await product.ended(id)).toMatchObject({ status: 'cancelled' });
  });

  test('give the model back together, and a picture brings them back', async () => {
    await allReady(product);
    const { models } = (await product.call('/api/v1/models')).json as { models: [{ id: string }] };
    const path = `/api/v1/models/${models[0].id}`;
    await until(async () => ((await product.call(`${path}/unload`, {})).status === 202 ? true : null));
    await until(async () => {
      const { children } = await product.status();
      return children.every(({ name, state }) => name === 'api' || state === 'stopped') ? true : null;
    });
    expect((await product.fetch('/readyz')).status, 'the next picture loads it').toBe(200);
    expect(sha256(await product.ended((await product.submit(OWL)).id))).toBe(reference.get(OWL.prompt));
  });

  test('a worker that is not there cannot be restarted, and one that is, is', async () => {
    await allReady(product);
    const restart = (name: string) => cli(['restart', name, '--data-dir', product.dataDir]);
    expect((await restart('inference-3')).stderr).toContain(
      'there is no inference-3; there are inference, inference-2, api',
    );
    expect((await restart('inferences')).stderr).toContain('USAGE_INVALID');
    const before = await product.pidOf('inference-2');
    await restart('inference-2');
    await until(async () => ((await product.pidOf('inference-2')) !== before ? true : null));
    await allReady(product);
  });
});

test('a device that does not work is told with its reason, and takes nothing from the others', async () => {
  const product = await startProduct(['--device', 'cuda:0,cpu', '--restart-max', '1']);
  onTestFinished(() => product.clean());
  await product.ready();
  const given = await until(async () => {
    const worker = await workerOf(product, 'inference');
    return worker?.state === 'failed' ? worker : null;
  });
  expect(given).toMatchObject({ device: { device: 'cuda:0' }, restarts: 2 });
  expect(given.reason).toContain('libonnxruntime_providers');
  expect(await product.ended((await product.submit(FOX)).id)).toMatchObject({ status: 'done', devices: ['cpu'] });
  await cli(['restart', 'inference', '--data-dir', product.dataDir]);
  const { stdout } = await cli(['doctor', '--device', 'cuda:0,cpu', '--data-dir', product.dataDir]);
  expect(stdout).toMatch(/^fail +model on cuda:0 +cuda:0: libonnxruntime_providers/m);
  expect(stdout).toMatch(/^pass +model on cpu /m);
  // Asked to try again it says so again.
  await until(async () => ((await workerOf(product, 'inference'))?.state === 'failed' ? true : null));
});

test('a start without a single device that works is refused with the reason of the first', async () => {
  const { code, stderr } = await cli([
    'start',
    '--port',
    '0',
    '--data-dir',
    temporaryFolder(),
    '--device',
    'cuda:0,cuda:1',
  ]);
  expect(code).not.toBe(0);
  expect(stderr).toMatch(/CUDA_RUNTIME_INCOMPLETE: cuda:0/);
});

test.each([
  ['auto,cpu', 'several cards as'],
  ['cuda:1,cuda:1', 'cuda:1 stands there twice: a card takes one worker'],
  [Array.from({ length: 17 }, () => 'cpu').join(','), '16 devices at most'],
])('--device %s is refused', async (device, why) => {
  const { stderr } = await cli(['config', 'check', '--device', device, '--data-dir', temporaryFolder()]);
  expect(stderr).toContain('CONFIG_INVALID');
  expect(stderr).toContain(why);
});

test('another number of devices is for the next start; another device in the same place is taken at once', async () => {
  const folder = temporaryFolder();
  const file = join(folder, 'config.toml');
  writeFileSync(file, 'device = "cpu,cpu"\n');
  const product = await startProduct(['--config', file, '--restart-max', '1']);
  onTestFinished(() => product.clean());
  await allReady(product);
  writeFileSync(file, 'device = "cpu"\n');
  const { stdout } = await cli(['reload', '--json', '--data-dir', product.dataDir]);
  expect(JSON.parse(stdout)).toMatchObject({ applied: [], ignored: ['device'] });
  writeFileSync(file, 'device = "cpu,cuda:0"\n');
  expect(JSON.parse((await cli(['reload', '--json', '--data-dir', product.dataDir])).stdout)).toMatchObject({
    applied: ['device'],
    restarted: ['inference'],
  });
  await until(async () => ((await workerOf(product, 'inference-2'))?.state === 'failed' ? true : null));
  await product.ready();
});

test('each plans its part of the memory, and what is begun elsewhere is left to an equal card where that is wanted', async () => {
  const script = join(REPOSITORY, 'test/fixtures/children/plans-several.mjs');
  const plans = async (devices: string) => {
    const { stdout } = await execa(process.execPath, [script, POCKET, temporaryFolder(), devices]);
    return JSON.parse(stdout) as { plan: { availableBytes: number } | null; taker: object; reason: string }[];
  };
  const [alone] = await plans('cpu');
  const both = await plans('cpu,cpu');
  const there = alone?.plan?.availableBytes as number;
  for (const { plan } of both) expect(plan?.availableBytes).toBeLessThan(0.75 * there);
  expect(both.map(({ taker }) => taker)).toEqual([
    { maxPixels: null, leaves: [] },
    { maxPixels: null, leaves: [] },
  ]);
  expect((await plans('cpu,cuda:0'))[1]).toMatchObject({ plan: null, taker: { leaves: ['cpu'] } });
  // Of neither is a model known: that makes them no twins.
  expect((await plans('cpu,webgpu:0'))[1]?.reason).not.toContain('of the same model');
});

test('the example of the settings names what a list of devices is', () => {
  expect(readFileSync(join(REPOSITORY, 'config/qwen-supervisor.toml'), 'utf8')).toContain("'cuda:0,cuda:1'");
});
