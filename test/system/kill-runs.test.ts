/**
 * Long runs of random SIGKILLs against real processes. Here in short; `npm run check:full` runs 1,000 and 200.
 */
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import type { Job } from '@qwen-supervisor/protocol/job';
import type { JobRequest } from '@qwen-supervisor/protocol/job-request';
import { afterEach, expect, test } from 'vitest';
import { type Product, processesWith, startProduct, until } from './product.js';

const [KILLS, SUPERVISOR_KILLS] = process.env.FULL ? [1000, 200] : [30, 10];
/** Different pictures; each is drawn once in peace, to know its bytes. */
const REQUESTS: Partial<JobRequest>[] = Array.from({ length: 6 }, (_, i) => ({
  prompt: 'a fox on a teal background',
  seed: i,
  numInferenceSteps: 10 + 10 * i,
}));

let product: Product;
afterEach(() => product.clean());

let random = 1;
/** Mulberry32. */
function dice(): number {
  random = (random + 0x6d2b79f5) | 0;
  let t = Math.imul(random ^ (random >>> 15), 1 | random);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const sha256Of = (job: Job) => job.images[0]?.sha256;

test(`${KILLS} random SIGKILLs of worker, API and supervisor under load: every acknowledged job is done, bit by bit as in peace; nobody is refused while children die`, async () => {
  product = await startProduct(['--max-queued', '100000']);
  const port = new URL(product.url).port;
  const inPeace = [];
  for (const request of REQUESTS) inPeace.push(sha256Of(await product.ended((await product.submit(request)).id)));

  const accepted = new Map<string, number>();
  let [refused, running, supervisorUp, sent] = [0, true, true, 0];
  // A client that repeats with its key until it is answered, as it should.
  const client = async () => {
    while (running) {
      const index = sent++ % REQUESTS.length;
      const key = `request-${sent}`;
      for (let answered = false; running && !answered; ) {
        try {
          const { status, json } = await product.call('/api/v1/jobs', REQUESTS[index], { 'idempotency-key': key });
          if (status === 202) accepted.set((json as Job).id, index);
          answered = status === 202;
        } catch {
          // Reset with the API that held it; whether it was accepted, the key will tell.
        }
        if (!answered) await pause(20);
      }
      await pause(700);
    }
  };
  const prober = async () => {
    while (running) {
      if (supervisorUp && (await isRefused(Number(port))) && supervisorUp) refused++;
      await pause(5);
    }
  };
  const work = [client(), prober()];
  for (let kill = 0; kill < KILLS; kill++) {
    await pause(50 + dice() * 900);
    const what = dice();
    if (what < 0.1) {
      supervisorUp = false;
      product.process.kill('SIGKILL');
      await product.exited;
      product = await startProduct(['--max-queued', '100000', '--port', port], product.dataDir);
      supervisorUp = true;
    } else {
      const name = what < 0.55 ? 'inference' : 'api';
      const pid = childPid(name);
      if (pid !== null) killIfThere(pid);
    }
  }
  running = false;
  await Promise.all(work);
  expect(refused, 'connections refused while the supervisor lived').toBe(0);
  expect(accepted.size).toBeGreaterThan(KILLS / 10);
  for (const [id, index] of accepted) {
    const job = await product.ended(id);
    expect(job, id).toMatchObject({ status: 'done' });
    expect(sha256Of(job), `${id}, ${job.attempts} attempts, resumed at ${job.resumedAtStep}`).toBe(inPeace[index]);
  }
  const { queue } = await product.status();
  expect(queue).toMatchObject({ queued: 0, running: 0 });
}, 3_600_000);

test(`${SUPERVISOR_KILLS} SIGKILLs of the supervisor at random instants, in the middle of loads too: no process is left after a second`, async () => {
  product = await startProduct();
  await product.ready();
  const mark = `QWEN_SUPERVISOR_CHILD_DATA_DIR=${product.dataDir}`;
  const gone: number[] = [];
  for (let kill = 0; kill < SUPERVISOR_KILLS; kill++) {
    if (kill % 3 === 0) await product.submit({ prompt: 'a fox', numInferenceSteps: 100, seed: kill });
    await pause(dice() * 2000);
    const start = performance.now();
    product.process.kill('SIGKILL');
    while (processesWith(mark).length > 0 && performance.now() - start < 5000) await pause(1);
    gone.push(performance.now() - start);
    await product.exited;
    product = await startProduct([], product.dataDir);
  }
  gone.sort((a, b) => a - b);
  const median = gone[Math.floor(gone.length / 2)] as number;
  console.log(`gone after ${median.toFixed(0)} ms (median), ${gone.at(-1)?.toFixed(0)} ms (longest)`);
  expect(gone.at(-1)).toBeLessThan(1000);
}, 3_600_000);

/** Whether nobody listens: the kernel holds connections while the API restarts. */
function isRefused(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.on('connect', () => resolve(false));
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
    socket.on('connect', () => socket.destroy());
  });
}

/** Found without asking anybody: the API may be down. */
function childPid(name: 'inference' | 'api'): number | null {
  const script = name === 'inference' ? 'inference/dist/worker.js' : 'api/dist/main.js';
  const pids = processesWith(`QWEN_SUPERVISOR_CHILD_DATA_DIR=${product.dataDir}`);
  return pids.find((pid) => commandOf(pid).includes(script)) ?? null;
}

/** Empty for a process that has just ended. */
function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

test('a client that repeats a request with its key after the API died with it gets the same job', async () => {
  product = await startProduct();
  const headers = { 'idempotency-key': 'once' };
  const [first, second] = [
    await product.call('/api/v1/jobs', REQUESTS[0], headers),
    await product.call('/api/v1/jobs', REQUESTS[0], headers),
  ];
  expect([first.headers.get('idempotent-replayed'), second.headers.get('idempotent-replayed')]).toEqual([null, 'true']);
  killIfThere(await product.pidOf('api'));
  const third = await until(() => product.call('/api/v1/jobs', REQUESTS[0], headers).catch(() => null));
  expect((third.json as Job).id).toBe((first.json as Job).id);
  expect(await product.call('/api/v1/jobs', REQUESTS[1], headers)).toMatchObject({
    status: 422,
    json: { error: { code: 'IDEMPOTENCY_KEY_REUSED' } },
  });
  expect((await product.call('/api/v1/jobs')).json).toMatchObject({ jobs: { length: 1 } });
});
