/**
 * How HTTP answers while the machine is busy. usage: npm run bench:http
 * Results are recorded in docs/benchmarks.md.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import autocannon from 'autocannon';

const here = dirname(fileURLToPath(import.meta.url));
const bin = join(here, '../../bin/qwen-supervisor.js');
const SECONDS = 15;
/** Requests per second of the pollers: a hundred pages that ask once a second. */
const POLLS = 100;
const LISTENERS = 1000;
/** Restarts over HTTP want an admin; a command of its own would be one more process to compete with. */
const KEY = 'admin-key-of-the-benchmark';
const headers = { authorization: `Bearer ${KEY}` };

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Loaded into every process; the supervisor's writes its event loop delay into a file. */
const LOOP_DELAY = `
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { writeFileSync } from 'node:fs';
if (process.argv[2] === 'start') {
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  setInterval(() => {
    writeFileSync(process.env.LOOP_DELAY_FILE, JSON.stringify({ p99: delay.percentile(99) / 1e6, max: delay.max / 1e6 }));
    delay.reset();
  }, 1000).unref();
}`;

async function start() {
  const dataDir = mkdtempSync(join(tmpdir(), 'qwen-supervisor-bench-'));
  const monitor = join(dataDir, 'loop-delay.mjs');
  writeFileSync(monitor, LOOP_DELAY);
  writeFileSync(join(dataDir, 'keys'), `admin ${KEY}\n`, { mode: 0o600 });
  const env = {
    ...process.env,
    NODE_OPTIONS: `--import ${monitor}`,
    LOOP_DELAY_FILE: join(dataDir, 'loop-delay.json'),
  };
  const args = [
    bin,
    'start',
    '--port',
    '0',
    '--data-dir',
    dataDir,
    '--max-queued',
    '1000000',
    '--requests-per-minute',
    '0',
    '--keys-file',
    join(dataDir, 'keys'),
  ];
  const child = spawn(process.execPath, args, { env });
  let output = '';
  child.stdout.on('data', (chunk) => {
    output += chunk;
  });
  while (!/listening on (http:[^"]+)"/.test(output)) await pause(10);
  const [, url] = /listening on (http:[^"]+)"/.exec(output);
  while (!(await fetch(`${url}/readyz`).catch(() => null))?.ok) await pause(20);
  const loopDelay = () => JSON.parse(readFileSync(env.LOOP_DELAY_FILE, 'utf8'));
  const stop = async () => {
    child.kill('SIGTERM');
    await new Promise((resolve) => child.on('close', resolve));
    rmSync(dataDir, { recursive: true });
  };
  return { url, dataDir, loopDelay, stop };
}

const post = (url, body) => fetch(url, { method: 'POST', headers, body: JSON.stringify(body) });
const fire = (options) =>
  new Promise((resolve) => autocannon({ headers, ...options }, (_error, result) => resolve(result)));

async function poll(url, path) {
  const { latency, non2xx, errors } = await fire({
    url: url + path,
    connections: 10,
    duration: SECONDS,
    overallRate: POLLS,
  });
  return `p50 ${latency.p50} ms, p99 ${latency.p99} ms, longest ${latency.max} ms, ${non2xx} refused, ${errors} errors`;
}

/** Keeps the worker busy until told to stop. */
async function draw(url, isOver) {
  while (!isOver()) {
    await post(`${url}/api/v1/jobs`, { prompt: 'a fox on a teal background', numInferenceSteps: 1000 });
    await pause(5000);
  }
}

/** Loads the model again as soon as it is loaded. */
async function load(url, isOver) {
  while (!isOver()) {
    await post(`${url}/api/v1/supervisor/restart`, { child: 'inference' });
    await pause(200);
    while (!(await fetch(`${url}/readyz`)).ok) await pause(100);
  }
}

const product = await start();
const { url } = product;
const paths = ['/healthz', '/api/v1/status', '/status'];

for (const path of paths) console.log(`idle            ${path.padEnd(16)} ${await poll(url, path)}`);
for (const [name, keepBusy] of [
  ['while drawing', (isOver) => draw(url, isOver)],
  ['while loading', (isOver) => load(url, isOver)],
]) {
  let over = false;
  const busy = keepBusy(() => over);
  await pause(1000);
  for (const path of paths) console.log(`${name.padEnd(15)} ${path.padEnd(16)} ${await poll(url, path)}`);
  over = true;
  await busy;
  await post(`${url}/api/v1/jobs/cancel`, { scope: 'queued' });
  await post(`${url}/api/v1/jobs/cancel`, { scope: 'running' });
}
while (!(await fetch(`${url}/readyz`)).ok) await pause(50);

// Every job is on the disk before its 202.
await post(`${url}/api/v1/jobs`, { prompt: 'a fox', numInferenceSteps: 1000, priority: 100 });
const body = JSON.stringify({ prompt: 'a fox on a teal background' });
for (const connections of [1, 20]) {
  const result = await fire({ url: `${url}/api/v1/jobs`, method: 'POST', body, connections, duration: SECONDS });
  const { requests, latency, non2xx } = result;
  console.log(
    `accept jobs, ${connections} at once: ${requests.average} per second, p99 ${latency.p99} ms, ${non2xx} refused`,
  );
  await post(`${url}/api/v1/jobs/cancel`, { scope: 'queued' });
}
await post(`${url}/api/v1/jobs/cancel`, { scope: 'running' });

const agent = new Agent({ maxSockets: LISTENERS, keepAlive: false });
let events = 0;
const responses = await Promise.all(
  Array.from(
    { length: LISTENERS },
    () =>
      new Promise((resolve, reject) => {
        get(`${url}/api/v1/events`, { agent, headers }, (response) => {
          response.on('data', (chunk) => {
            events += chunk.toString().split('\n\n').length - 1;
          });
          resolve(response);
        }).on('error', reject);
      }),
  ),
);
await pause(2000);
console.log(`${LISTENERS} listeners, idle: loop delay of the supervisor p99 ${product.loopDelay().p99.toFixed(1)} ms`);
events = 0;
const { id } = await (await post(`${url}/api/v1/jobs`, { prompt: 'a fox', numInferenceSteps: 200 })).json();
const delays = [];
while (!(await (await fetch(`${url}/api/v1/jobs/${id}`, { headers })).json()).finishedAt) {
  await pause(1000);
  delays.push(product.loopDelay());
}
const p99 = Math.max(...delays.map((delay) => delay.p99)).toFixed(1);
const longest = Math.max(...delays.map((delay) => delay.max)).toFixed(1);
console.log(
  `${LISTENERS} listeners, a picture of 200 steps: ${events} events read, loop delay p99 ${p99} ms, longest ${longest} ms`,
);
const open = responses.filter((response) => !response.destroyed).length;
console.log(`${open} of them still listen`);
for (const response of responses) response.destroy();
await product.stop();
process.exit(0);
