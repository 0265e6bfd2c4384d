/**
 * What supervision costs: restart decision, memory, idle processor time, checkpoints. usage: npm run bench:supervision
 * Results are recorded in docs/benchmarks.md.
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const bin = join(here, '../../bin/qwen-supervisor.js');
const KILLS = 30;
const PAIRS = 12;
const STEPS = 100;
/** V8 tidies up for half a minute after a start. */
const SETTLE_MS = 45_000;
const IDLE_MS = 60_000;
const TICKS_PER_SECOND = 100;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

async function until(probe) {
  for (;;) {
    const value = await probe();
    if (value) return value;
    await pause(1);
  }
}

async function start(args = []) {
  const dataDir = mkdtempSync(join(tmpdir(), 'qwen-supervisor-bench-'));
  const child = spawn(process.execPath, [bin, 'start', '--port', '0', '--data-dir', dataDir, ...args]);
  let output = '';
  child.stdout.on('data', (chunk) => {
    output += chunk;
  });
  const url = await until(() => /listening on (http:[^"]+)"/.exec(output)?.[1]);
  await until(async () => (await fetch(`${url}/readyz`).catch(() => null))?.ok);
  const stop = async () => {
    child.kill('SIGTERM');
    await new Promise((resolve) => child.on('close', resolve));
    rmSync(dataDir, { recursive: true });
  };
  return { url, dataDir, pid: child.pid, stop };
}

const rssOf = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1000;
const anonymousOf = (pid) => Number(/RssAnon:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1000;
const ticksOf = (pid) => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return Number(fields[11]) + Number(fields[12]);
};

/** Process id of a child whose command names this script; null while there is none. */
function childOf(pid, script) {
  for (const name of readdirSync('/proc')) {
    try {
      if (Number(readFileSync(`/proc/${name}/stat`, 'utf8').split(') ')[1].split(' ')[1]) !== pid) continue;
      if (readFileSync(`/proc/${name}/cmdline`, 'utf8').includes(script)) return Number(name);
    } catch {
      // Not a process, or gone meanwhile.
    }
  }
  return null;
}

async function draw(url, seed, steps = STEPS) {
  const body = JSON.stringify({ prompt: 'a fox', numInferenceSteps: steps, seed });
  const { id } = await (await fetch(`${url}/api/v1/jobs`, { method: 'POST', body })).json();
  const events = await fetch(`${url}/api/v1/jobs/${id}/events`);
  const begin = performance.now();
  await events.text();
  return performance.now() - begin;
}

const product = await start();
await pause(SETTLE_MS);
const before = ticksOf(product.pid);
await pause(IDLE_MS);
const share = (ticksOf(product.pid) - before) / TICKS_PER_SECOND / (IDLE_MS / 1000);
console.log(`idle processor time:        ${(100 * share).toFixed(3)} % of a core`);
console.log(
  `idle resident memory:       ${rssOf(product.pid).toFixed(0)} MB, ${anonymousOf(product.pid).toFixed(0)} of them its own`,
);

const bare = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
await pause(2000);
console.log(
  `a Node that does nothing:   ${rssOf(bare.pid).toFixed(0)} MB, ${anonymousOf(bare.pid).toFixed(0)} of them its own`,
);
bare.kill();

const decisions = [];
for (let kill = 0; kill < KILLS; kill++) {
  // A job that ends well makes the next death a first one, after which there is no delay.
  await draw(product.url, kill, 1);
  const pid = childOf(product.pid, 'inference/dist/worker');
  const begin = performance.now();
  process.kill(pid, 'SIGKILL');
  await until(() => {
    const next = childOf(product.pid, 'inference/dist/worker');
    return next !== null && next !== pid;
  });
  decisions.push(performance.now() - begin);
}
console.log(`kill to the next process:   ${median(decisions).toFixed(0)} ms (median of ${KILLS})`);
await product.stop();

const flags = ['--expose-gc', '--max-semi-space-size=1', '--optimize-for-size'];
const { stdout } = spawnSync(process.execPath, [...flags, join(here, 'child-restarts.js')], { encoding: 'utf8' });
const restarts = JSON.parse(stdout.trim().split('\n').at(-1));
const grown = (restarts.after.rss - restarts.before.rss) / 1e6;
console.log(
  `after 10,000 dead children: ${grown.toFixed(1)} MB more, ${restarts.after.descriptors - restarts.before.descriptors} descriptors more`,
);

const [every, never] = [await start(), await start(['--checkpoint-steps', '1000'])];
const times = { every: [], never: [] };
for (let pair = 0; pair < PAIRS; pair++) {
  times.every.push(await draw(every.url, pair));
  times.never.push(await draw(never.url, pair));
}
await Promise.all([every.stop(), never.stop()]);
const [withThem, without] = [median(times.every) / STEPS, median(times.never) / STEPS];
console.log(
  `a step with its checkpoint: ${withThem.toFixed(2)} ms; without: ${without.toFixed(2)} ms; ratio ${(withThem / without).toFixed(4)}`,
);
