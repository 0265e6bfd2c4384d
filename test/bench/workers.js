/**
 * What a second worker is worth. usage: npm run bench:workers
 * Results are recorded in docs/benchmarks.md.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const bin = join(dirname(fileURLToPath(import.meta.url)), '../../bin/qwen-supervisor.js');
const PICTURES = 24;
const WISH = { prompt: 'a fox', width: 64, height: 64, numInferenceSteps: 10, trueCfgScale: 1 };
/** As a card that computes: the step takes its time, and no processor. */
const STEP_MS = 100;
const WAITING_STEPS = `
import { isMainThread, Worker } from 'node:worker_threads';
if (isMainThread && process.argv[1]?.endsWith('inference/dist/worker.js')) {
  const { postMessage } = Worker.prototype;
  const cell = new Int32Array(new SharedArrayBuffer(4));
  Worker.prototype.postMessage = function (message, transfer) {
    if (message.type === 'step') Atomics.wait(cell, 0, 0, ${STEP_MS});
    return postMessage.call(this, message, transfer);
  };
}`;

/** Seconds from the first picture that is begun to the last that is done. */
async function seconds(device, waits) {
  const dataDir = mkdtempSync(join(tmpdir(), 'qwen-supervisor-bench-'));
  const fixture = join(dataDir, 'waiting-steps.mjs');
  writeFileSync(fixture, WAITING_STEPS);
  const env = { ...process.env, ...(waits ? { NODE_OPTIONS: `--import ${fixture}` } : {}) };
  const args = [bin, 'start', '--port', '0', '--data-dir', dataDir, '--device', device, '--threads', '1'];
  const child = spawn(process.execPath, args, { env });
  try {
    const url = await new Promise((resolve) => {
      child.stdout.on('data', (chunk) => {
        const found = /listening on (http:\S+?)"/.exec(chunk.toString())?.[1];
        if (found) resolve(found);
      });
    });
    const status = async () => (await fetch(`${url}/api/v1/status`)).json();
    const until = async (isSo) => {
      while (!isSo(await status().catch(() => null))) await new Promise((resolve) => setTimeout(resolve, 20));
    };
    await until((now) => now?.children.every(({ state }) => state === 'ready'));
    const startMs = performance.now();
    const jobs = Array.from({ length: PICTURES }, (_, seed) => ({ ...WISH, seed }));
    await fetch(`${url}/api/v1/groups`, { method: 'POST', body: JSON.stringify({ jobs }) });
    await until((now) => now?.queue.queued + now?.queue.running === 0);
    return (performance.now() - startMs) / 1000;
  } finally {
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('close', resolve));
    rmSync(dataDir, { recursive: true, force: true, maxRetries: 10 });
  }
}

for (const waits of [true, false]) {
  const [one, two] = [await seconds('cpu', waits), await seconds('cpu,cpu', waits)];
  const how = waits
    ? `steps of ${STEP_MS} ms that need no processor`
    : 'steps that compute, one thread for each worker';
  const times = `one worker ${one.toFixed(1)} s, two ${two.toFixed(1)} s`;
  console.log(`${PICTURES} pictures, ${how}: ${times}, ratio ${(one / two).toFixed(2)}`);
}
