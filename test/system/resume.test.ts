import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { NumberedEvent } from '@qwen-supervisor/protocol/events';
import { afterEach, expect, test } from 'vitest';
import { cli, isAlive, type Product, startProduct, until } from './product.js';

const LONG = { prompt: 'a fox on a teal background', seed: 11, numInferenceSteps: 400 };

let product: Product;
afterEach(() => product.clean());

/** Submits a job and waits until it has completed `step` steps. */
async function drawing(step: number): Promise<string> {
  const { id } = await product.submit(LONG);
  await until(async () => ((await product.job(id)).step >= step ? true : null));
  return id;
}

/** sha256 of the same picture, drawn in one go. */
async function undisturbed(): Promise<string | undefined> {
  return (await product.ended((await product.submit(LONG)).id)).images[0]?.sha256;
}

async function eventsOf(id: string): Promise<NumberedEvent[]> {
  const { stdout } = await cli(['events', '--data-dir', product.dataDir]);
  const events = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as NumberedEvent);
  return events.filter((event) => 'jobId' in event && event.jobId === id);
}

async function startAgain(): Promise<void> {
  product = await startProduct([], product.dataDir);
}

const checkpoints = () => readdirSync(join(product.dataDir, 'checkpoints'));

test('a worker killed at step k goes on at step k, and its step never falls', async () => {
  product = await startProduct();
  const id = await drawing(20);
  const steps: number[] = [];
  let watching = true;
  const watch = (async () => {
    while (watching) steps.push((await product.job(id)).step);
  })();
  process.kill(await product.pidOf('inference'), 'SIGKILL');
  const job = await product.ended(id);
  watching = false;
  await watch;
  const events = await eventsOf(id);
  const requeued = events.find((event) => event.type === 'requeued');
  const running = events.filter((event) => event.type === 'running').at(-1);
  expect(requeued?.type === 'requeued' && requeued.step).toBeGreaterThanOrEqual(20);
  // The last step before the death may have been written and not yet told.
  expect([requeued?.step, (requeued?.step ?? 0) + 1]).toContain(running?.step);
  expect(job).toMatchObject({ attempts: 2, resumedAtStep: running?.step, startedOverReason: null });
  expect(steps.every((step, i) => step >= (steps[i - 1] ?? 0))).toBe(true);
  expect(job.images[0]?.sha256).toBe(await undisturbed());
  expect(checkpoints(), 'checkpoints of finished jobs are gone').toEqual([]);
});

test('when all processes are killed at once the next start goes on from the checkpoint', async () => {
  product = await startProduct();
  const id = await drawing(20);
  const pids = [await product.pidOf('inference'), await product.pidOf('api')];
  const { step } = await product.job(id);
  for (const pid of [product.process.pid as number, ...pids]) process.kill(pid, 'SIGKILL');
  await product.exited;
  await startAgain();
  expect((await product.job(id)).step).toBeGreaterThanOrEqual(step);
  const job = await product.ended(id);
  expect(job).toMatchObject({ status: 'done', attempts: 2 });
  expect(job.resumedAtStep).toBeGreaterThanOrEqual(step);
  expect(job.images[0]?.sha256).toBe(await undisturbed());
});

test('a stop keeps the step, by default at once and without the job', async () => {
  product = await startProduct();
  const id = await drawing(20);
  product.process.kill('SIGTERM');
  expect(await product.exited).toMatchObject({ code: 0 });
  await startAgain();
  const job = await product.ended(id);
  expect(job.resumedAtStep).toBeGreaterThanOrEqual(20);
  expect(job.images[0]?.sha256).toBe(await undisturbed());
});

test("with on-stop 'finish' a stop lets the running job end, refuses new ones, and a second one does not wait", async () => {
  product = await startProduct(['--on-stop', 'finish']);
  const id = await drawing(20);
  const waiting = await product.submit({ ...LONG, numInferenceSteps: 1 });
  product.process.kill('SIGTERM');
  await until(async () => ((await product.call('/api/v1/jobs', LONG)).status === 503 ? true : null));
  expect(await product.exited).toMatchObject({ code: 0 });
  await startAgain();
  expect(await product.job(id)).toMatchObject({ status: 'done', attempts: 1 });
  expect(await product.ended(waiting.id)).toMatchObject({ status: 'done', attempts: 1 });
  await product.clean();

  product = await startProduct(['--on-stop', 'finish']);
  const unfinished = await drawing(20);
  product.process.kill('SIGINT');
  const { process: supervisor, exited } = product;
  // One that reaches it within half a second of the first is the same one.
  const again = setInterval(() => supervisor.kill('SIGINT'), 2000);
  await exited;
  clearInterval(again);
  expect(await product.exited).toMatchObject({ code: 0 });
  await startAgain();
  const { status, step } = await product.job(unfinished);
  expect([status === 'done', step >= 20], 'it was not waited for, and keeps its steps').toEqual([false, true]);
});

test('a checkpoint that is damaged, or of another model, is discarded with a reason, and the job starts over', async () => {
  product = await startProduct();
  const damaged = await drawing(20);
  product.process.kill('SIGKILL');
  await product.exited;
  const files = () => checkpoints().map((name) => join(product.dataDir, 'checkpoints', name));
  await until(async () => (files().length > 0 && files().every((file) => file.endsWith('.ckpt')) ? true : null));
  for (const file of files()) truncateSync(file, readFileSync(file).length - 5);
  await startAgain();
  const job = await product.ended(damaged);
  expect(job).toMatchObject({
    status: 'done',
    resumedAtStep: null,
    startedOverReason: expect.stringMatching(/^the checkpoint of step \d+ is damaged$/),
  });
  expect(job.images[0]?.sha256).toBe(await undisturbed());

  const other = await drawing(20);
  product.process.kill('SIGKILL');
  await product.exited;
  for (const file of files().filter((path) => path.endsWith('.ckpt'))) {
    writeFileSync(file, rewriteModel(readFileSync(file)));
  }
  await startAgain();
  expect(await product.ended(other)).toMatchObject({ startedOverReason: expect.stringContaining('another model') });
});

/** The same checkpoint, but of another model, with a checksum that is right. */
function rewriteModel(bytes: Buffer): Buffer {
  const text = bytes
    .subarray(0, -32)
    .toString('latin1')
    .replace(/"model":"[0-9a-f]{8}/, '"model":"00000000');
  const body = Buffer.from(text, 'latin1');
  return Buffer.concat([body, createHash('sha256').update(body).digest()]);
}

test('started by npm, it stops when npm is gone', async () => {
  product = await startProduct();
  product.process.kill('SIGTERM');
  await product.exited;
  const { dataDir } = product;
  // What `npm start` looks like from inside: npm, a shell, the program.
  const bin = join(process.cwd(), 'bin/qwen-supervisor.js');
  const npm = spawn('sh', ['-c', `sh -c 'node ${bin} start --port 0 --data-dir ${dataDir}; true'; true`], {
    env: { ...process.env, npm_lifecycle_event: 'start' },
  });
  const pid = await until(async () => {
    const [line] = readFileSync(join(dataDir, 'logs/supervisor.log'), 'utf8').split('\n').filter(listensLast).slice(-1);
    const found = line ? (JSON.parse(line).pid as number) : null;
    return found !== product.process.pid ? found : null;
  });
  npm.kill('SIGKILL');
  await once(npm, 'exit');
  await until(async () => (isAlive(pid) ? null : true));
  const log = readFileSync(join(dataDir, 'logs/supervisor.log'), 'utf8');
  expect(log).toContain('stopping: the npm that started it has ended');
});

function listensLast(line: string): boolean {
  return line.includes('listening on');
}
