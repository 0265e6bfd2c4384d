/** The real worker, made to misbehave: each ends as docs/operations.md says. */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execaSync } from 'execa';
import { afterEach, describe, expect, test } from 'vitest';
import { temporaryFolder } from '../fixture-files.js';
import { cli, isAlive, NASTY, type Product, processesWith, startProduct, until } from './product.js';

const FOX = { prompt: 'a fox on a teal background', seed: 11, numInferenceSteps: 2 };

let product: Product;
afterEach(() => product.clean());

async function start(args: string[] = [], env: Record<string, string> = {}): Promise<Product> {
  product = await startProduct(args, undefined, { ...NASTY, ...env });
  return product;
}

const worker = async () => (await product.status()).children[0];
const log = () => readFileSync(join(product.dataDir, 'logs/supervisor.log'), 'utf8');

test('a device that is lost in the middle of a picture costs an attempt: the job goes on at its last step', async () => {
  const { submit, ended, dataDir } = await start([], { NASTY_ONCE: join(temporaryFolder(), 'once') });
  const job = await ended((await submit({ prompt: 'lose the device', numInferenceSteps: 30 })).id);
  expect(job).toMatchObject({ status: 'done', attempts: 2, startedOverReason: null });
  expect(job.resumedAtStep).toBeGreaterThan(5);
  expect((await cli(['crashes', '--json', '--data-dir', dataDir])).stdout).toContain('DEVICE_LOST');
});

test('a job that makes the worker abort is failed after exactly two deaths; twenty others are done, and nothing is given up', async () => {
  await start();
  const poison = await product.submit({ ...FOX, prompt: 'poison' });
  const good = [];
  for (let i = 0; i < 20; i++) good.push(await product.submit({ ...FOX, seed: i }));
  expect(await product.ended(poison.id)).toMatchObject({
    status: 'failed',
    attempts: 2,
    error: { code: 'JOB_POISONED' },
  });
  for (const { id } of good) expect(await product.ended(id)).toMatchObject({ status: 'done', attempts: 1 });
  expect(await worker()).toMatchObject({
    state: 'ready',
    restarts: 2,
    lastExit: { signal: 'SIGABRT', cause: 'crashed' },
  });
  const { stdout } = await cli(['crashes', '--data-dir', product.dataDir]);
  expect(stdout).toMatch(/crashed while busy[\s\S]*ended by SIGABRT; starting again[\s\S]*in its hands: job_/);
  const retried = await product.call(`/api/v1/jobs/${poison.id}/retry`, {});
  expect(retried).toMatchObject({ status: 202, json: { retryOf: poison.id, status: 'queued' } });
});

test('a worker in an endless loop is found by its step counter, though its helper thread beats', async () => {
  await start(['--step-limit-seconds', '4', '--beat-limit-seconds', '3']);
  const { id } = await product.submit({ ...FOX, prompt: 'loop' });
  expect(await product.ended(id)).toMatchObject({ status: 'failed', attempts: 2, error: { code: 'JOB_POISONED' } });
  expect(await worker()).toMatchObject({ lastExit: { cause: 'hung' } });
  expect(log()).toMatch(/no step for \d+ s, expected after/);
});

test('a worker that floods its output costs neither memory nor answers, and what is dropped is counted', async () => {
  await start();
  await product.ready();
  const rss = () =>
    Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${product.process.pid}/status`, 'utf8'))?.[1]) * 1024;
  const before = rss();
  const { id } = await product.submit({ ...FOX, prompt: 'flood' });
  const peaks: number[] = [];
  const job = await until(async () => {
    const now = await product.job(id);
    peaks.push(rss());
    return now.status === 'done' ? now : null;
  });
  expect(job.attempts).toBe(1);
  expect(Math.max(...peaks) - before).toBeLessThan(60e6);
  const dropped = await until(async () => (/\d+ lines of its output were dropped/.test(log()) ? true : null));
  expect(dropped).toBe(true);
  expect(log()).toMatch(/x{8192} …/);
});

test('a load that goes on slowly for ten stall limits is not killed', async () => {
  await start(['--load-stall-seconds', '2'], { NASTY_LOAD: 'slow' });
  await until(async () => ((await worker())?.state === 'loading' ? true : null));
  await product.ready();
  expect(await worker()).toMatchObject({ state: 'ready', restarts: 0 });
  expect((await product.status()).model.loadSeconds).toBeGreaterThan(20);
});

test('a load that stalls is killed, and the status says where it stood', async () => {
  await start(['--load-stall-seconds', '2', '--restart-max', '1'], { NASTY_LOAD: 'stall' });
  const child = await until(async () => {
    const now = await worker();
    return now?.state === 'failed' ? now : null;
  });
  expect(child).toMatchObject({ restarts: 2, lastExit: { cause: 'stalled' } });
  expect(child?.reason).toMatch(/^MODEL_LOAD_STALLED: transformer at \d+ %, no progress for [23] s/);
  expect(await product.call('/api/v1/jobs', FOX)).toMatchObject({ status: 503 });
  expect(await cli(['restart', '--data-dir', product.dataDir])).toMatchObject({ code: 0 });
  expect((await worker())?.state).toMatch(/starting|loading/);
});

test('no process is left when the supervisor is killed, also a grandchild that hides in a group of its own after the next start', async () => {
  await start();
  const { id } = await product.submit({ ...FOX, prompt: 'grandchild' });
  await product.ended(id);
  const mark = `QWEN_SUPERVISOR_CHILD_DATA_DIR=${product.dataDir}`;
  expect(processesWith(mark)).toHaveLength(3);
  // A planned restart of its parent ends it, too.
  await cli(['restart', '--data-dir', product.dataDir]);
  await until(async () => (processesWith(mark).length === 2 ? true : null));
  await product.ready();
  await product.ended((await product.submit({ ...FOX, prompt: 'grandchild' })).id);
  expect(processesWith(mark)).toHaveLength(3);
  const [child, api] = [await product.pidOf('inference'), await product.pidOf('api')];
  process.kill(product.process.pid as number, 'SIGKILL');
  await until(async () => (isAlive(child) || isAlive(api) ? null : true));
  const [grandchild] = processesWith(mark);
  expect(processesWith(mark)).toHaveLength(1);
  // It holds the pipes of the dead supervisor's children, so that 'close' does not come.
  product = await startProduct([], product.dataDir);
  expect(isAlive(grandchild as number)).toBe(false);
  expect(log()).toContain('killed processes of an earlier supervisor');
});

test('a supervisor that stood still itself blames nobody', async () => {
  await start(['--beat-limit-seconds', '2']);
  await product.ready();
  const pid = (await worker())?.pid;
  product.process.kill('SIGSTOP');
  await new Promise((resolve) => setTimeout(resolve, 4000));
  product.process.kill('SIGCONT');
  expect(await product.ended((await product.submit(FOX)).id)).toMatchObject({ status: 'done', attempts: 1 });
  expect(await worker()).toMatchObject({ pid, restarts: 0 });
});

test('an API that hangs is replaced', async () => {
  await start(['--beat-limit-seconds', '2']);
  await product.ready();
  process.kill(await product.pidOf('api'), 'SIGSTOP');
  const { children } = await until(async () => {
    const { stdout } = await cli(['status', '--json', '--data-dir', product.dataDir]);
    const status = JSON.parse(stdout);
    return status.children[1].restarts === 1 && status.children[1].state === 'ready' ? status : null;
  });
  expect(children[1]).toMatchObject({ lastExit: { cause: 'hung' } });
  expect((await fetch(`${product.url}/healthz`)).ok).toBe(true);
});

test('a job database that is damaged is kept aside and reported, and the service starts', async () => {
  const dataDir = join(temporaryFolder(), 'data');
  product = await startProduct([], dataDir);
  const done = await product.ended((await product.submit(FOX)).id);
  product.process.kill('SIGTERM');
  await product.exited;
  writeFileSync(join(dataDir, 'jobs.db'), 'garbage '.repeat(2000));
  product = await startProduct([], dataDir);
  expect((await product.call('/api/v1/jobs')).json).toEqual({ jobs: [], next: null });
  expect(await product.ended((await product.submit(FOX)).id)).toMatchObject({ status: 'done' });
  expect(readdirSync(dataDir).some((name) => name.startsWith('jobs.db.damaged-'))).toBe(true);
  expect(readdirSync(join(dataDir, 'images'))).toContain(`${done.id}.png`);
  expect(log()).toContain('the job database was damaged: kept as');
});

/** Whether this machine lets us mount a small disk. */
const CAN_MOUNT = process.getuid?.() === 0 && tryMount();

function tryMount(): boolean {
  const folder = '/tmp/qwen-supervisor-mount-probe';
  const mounted = execaSync('sh', ['-c', `mkdir -p ${folder} && mount -t tmpfs -o size=1m tmpfs ${folder}`], {
    reject: false,
  });
  execaSync('sh', ['-c', `umount ${folder}; rmdir ${folder}`], { reject: false });
  return mounted.exitCode === 0;
}

describe.skipIf(!CAN_MOUNT)('on a disk that is full', () => {
  let disk: string;

  async function startOnSmallDisk(): Promise<void> {
    disk = temporaryFolder();
    execaSync('mount', ['-t', 'tmpfs', '-o', 'size=120m', 'tmpfs', disk]);
    product = await startProduct([], disk);
    await product.ready();
  }

  /** Leaves no byte free. */
  function fill(): void {
    execaSync('sh', ['-c', `cat /dev/zero >> ${disk}/ballast`], { reject: false });
  }

  const free = () => rmSync(join(disk, 'ballast'));

  afterEach(async () => {
    product.process.kill('SIGKILL');
    await product.exited;
    await until(async () => (processesWith(`QWEN_SUPERVISOR_CHILD_DATA_DIR=${disk}`).length === 0 ? true : null));
    execaSync('umount', ['-l', disk]);
  });

  test('checkpoints are left out and said, the picture is refused with its reason, nothing dies, and with room all goes on', async () => {
    await startOnSmallDisk();
    const { id } = await product.submit({ ...FOX, numInferenceSteps: 150 });
    await until(async () => ((await product.job(id)).step >= 5 ? true : null));
    fill();
    const pid = (await worker())?.pid;
    // The end of the job waits for the disk; the supervisor says so and answers.
    const { queue } = await until(async () => {
      // Whatever was removed meanwhile has made a little room.
      fill();
      const status = await product.status();
      return status.queue.problem === null ? null : status;
    });
    expect(queue.problem).toMatch(/the job database cannot be written/);
    expect(await product.call('/api/v1/jobs', FOX)).toMatchObject({
      status: 507,
      json: { error: { code: 'DISK_FULL' } },
    });
    free();
    const job = await product.ended(id);
    expect(job).toMatchObject({ status: 'failed', error: { code: 'IMAGE_WRITE_FAILED' } });
    expect(await product.ended((await product.submit(FOX)).id)).toMatchObject({ status: 'done' });
    expect(await worker()).toMatchObject({ pid, restarts: 0 });
    await until(async () => (log().includes('checkpoint of step') ? true : null));
    expect(log()).toMatch(/the job database can be written again/);
  });
});
