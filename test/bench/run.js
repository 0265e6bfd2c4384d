/**
 * Speed, recorded in docs/benchmarks.md as ratios. usage: npm run bench
 *
 * With PYTHON naming an interpreter that has torch and diffusers, the same pictures are drawn with diffusers in turn with
 * ours, and the ratio is printed.
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const repository = join(here, '..', '..');
const checkpoint = join(repository, 'packages/pocket-model/checkpoint');
const ROUNDS = 3;

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const seconds = (value) => `${value.toFixed(3)} s`;

/** Runs a program that prints seconds as JSON. */
function measure(command, args) {
  const { stdout, stderr, status } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} failed: ${stderr}`);
  return JSON.parse(stdout.trim().split('\n').at(-1));
}

/** Seconds from the start of the command to a worker that is ready. */
async function coldStart(dataDir) {
  const start = performance.now();
  const child = spawn(process.execPath, [
    join(repository, 'bin/qwen-supervisor.js'),
    'start',
    '--port',
    '0',
    '--data-dir',
    dataDir,
  ]);
  await new Promise((resolve) => {
    child.stdout.on('data', (chunk) => /"child":"inference".*"state":"ready"/.test(chunk) && resolve());
  });
  const elapsed = (performance.now() - start) / 1000;
  child.kill('SIGTERM');
  await new Promise((resolve) => child.on('close', resolve));
  return elapsed;
}

console.log(`${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}`);

const [first, later] = [[], []];
for (let round = 0; round < ROUNDS; round++) {
  const dataDir = mkdtempSync(join(tmpdir(), 'qwen-supervisor-bench-'));
  first.push(await coldStart(dataDir));
  later.push(await coldStart(dataDir));
  rmSync(dataDir, { recursive: true });
}
console.log(`start to ready, first time on a machine: ${seconds(median(first))}`);
console.log(`start to ready, later:                   ${seconds(median(later))}`);

const [ours, theirs] = [[], []];
for (let round = 0; round < ROUNDS; round++) {
  ours.push(...measure(process.execPath, [join(here, 'pictures.js'), checkpoint]));
  if (process.env.PYTHON)
    theirs.push(...measure(process.env.PYTHON, [join(here, 'diffusers_pictures.py'), checkpoint]));
}
console.log(`a picture (128x128, 20 steps, CFG 4):    ${seconds(median(ours))}`);
if (theirs.length > 0) {
  console.log(`the same with diffusers on the CPU:      ${seconds(median(theirs))}`);
  console.log(`ratio:                                   ${(median(theirs) / median(ours)).toFixed(2)} times as fast`);
}
