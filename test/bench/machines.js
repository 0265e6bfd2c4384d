/**
 * What more machines are worth, what they cost the database while nothing is drawn, and what a claim takes among many
 * finished jobs. usage: npm run bench:machines, with Node 22.12 or newer and Debian's postgresql-15 (ten minutes).
 * Results are recorded in docs/benchmarks.md.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PrivatePostgres } from './private-postgres.js';

const here = dirname(fileURLToPath(import.meta.url));
const bin = join(here, '../../bin/qwen-supervisor.js');
const worker = join(here, '../fixtures/children/hashing-worker.mjs');
const HOSTS = 5;
/** Of a picture: two seconds that need no processor. */
const [STEPS, STEP_MS] = [20, 100];
const PICTURES_EACH = 15;
const IDLE_SECONDS = 60;
const FINISHED = 100_000;
const CLAIMS = 300;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const postgres = new PrivatePostgres();
const { store } = postgres;
const shared = join(postgres.folder, 'shared');

const started = [];

class Machine {
  static async start(name) {
    const machine = new Machine();
    const args = [bin, 'start', '--port', '0', '--data-dir', join(postgres.folder, name), '--store', store];
    const limits = ['--device', 'cpu', '--max-queued', '1000', '--keep-gigabytes', '1000'];
    const env = { ...process.env, NODE_OPTIONS: `--import ${worker}`, STEP_MS: String(STEP_MS) };
    started.push(machine);
    machine.process = spawn(process.execPath, [...args, '--shared-folder', shared, ...limits], { env });
    machine.url = await new Promise((resolve, reject) => {
      machine.process.once('exit', () => reject(new Error(`${name} ended before it listened`)));
      machine.process.stdout.on('data', (chunk) => {
        const found = /listening on (http:\S+?)"/.exec(chunk.toString())?.[1];
        if (found) resolve(found);
      });
    });
    const isReady = () =>
      fetch(`${machine.url}/readyz`).then(
        ({ ok }) => ok,
        () => false,
      );
    while (!(await isReady())) await sleep(50);
    return machine;
  }

  async get(path) {
    return (await fetch(this.url + path)).json();
  }

  async post(path, body) {
    const response = await fetch(this.url + path, { method: 'POST', body: JSON.stringify(body) });
    if (!response.ok) throw new Error(await response.text());
    return response.json();
  }

  async stop() {
    const ended = new Promise((resolve) => this.process.once('exit', resolve));
    this.process.kill('SIGTERM');
    await ended;
  }
}

const wish = (seed, numInferenceSteps) => ({
  prompt: 'bench',
  width: 64,
  height: 64,
  numInferenceSteps,
  trueCfgScale: 1,
  seed,
});

/** Seconds until as many pictures as fall to each of them are done. */
async function drawn(machines) {
  const jobs = Array.from({ length: PICTURES_EACH * machines.length }, (_, seed) => wish(seed, STEPS));
  const startMs = performance.now();
  for (let i = 0; i < jobs.length; i += 30) await machines[0].post('/api/v1/groups', { jobs: jobs.slice(i, i + 30) });
  for (;;) {
    const { queue } = await machines[0].get('/api/v1/status');
    if (queue.queued + queue.running === 0) return (performance.now() - startMs) / 1000;
    await sleep(20);
  }
}

/** Milliseconds from a job's request to its end, without its one step; one after the other. */
async function claims(machine) {
  const times = [];
  for (let seed = 0; seed < CLAIMS; seed++) {
    const startMs = performance.now();
    const { id } = await machine.post('/api/v1/jobs', wish(seed, 1));
    while ((await machine.get(`/api/v1/jobs/${id}`)).status !== 'done') await sleep(2);
    times.push(performance.now() - startMs - STEP_MS);
  }
  times.sort((a, b) => a - b);
  const at = (share) => times[Math.floor(share * times.length)].toFixed(0);
  return `half within ${at(0.5)} ms, 99 of 100 within ${at(0.99)} ms`;
}

try {
  postgres.start();
  mkdirSync(shared);
  execFileSync(process.execPath, [bin, 'store', 'migrate', '--store', store, '--shared-folder', shared]);
  const machines = [await Machine.start('h1')];
  const one = await drawn(machines);
  console.log(`1 machine: ${PICTURES_EACH} pictures of ${(STEPS * STEP_MS) / 1000} s in ${one.toFixed(1)} s`);
  while (machines.length < HOSTS) {
    machines.push(await Machine.start(`h${machines.length + 1}`));
    const seconds = await drawn(machines);
    const n = machines.length;
    console.log(
      `${n} machines: ${n * PICTURES_EACH} in ${seconds.toFixed(1)} s, ${((n * one) / seconds).toFixed(2)} times one`,
    );
  }
  await sleep(5000);
  const before = postgres.seconds();
  await sleep(IDLE_SECONDS * 1000);
  const idle = (100 * (postgres.seconds() - before)) / IDLE_SECONDS;
  console.log(`${HOSTS} idle supervisors: the server uses ${idle.toFixed(2)} % of a core`);
  await Promise.all(machines.splice(1).map((machine) => machine.stop()));
  console.log(`a picture of one step, beside the step: ${await claims(machines[0])}`);
  postgres.psql(`INSERT INTO qwen_supervisor.jobs (id, status, request, width, height, prompt, priority, rank, source, work, entry,
      created_at, finished_at, image)
    SELECT 'job_' || substr(md5(n::text), 1, 24), 'done', request, width, height, prompt, priority, rank, source, work,
      gen_random_uuid(), created_at, finished_at, (image::jsonb || jsonb_build_object('id', n::text))::text
    FROM (SELECT * FROM qwen_supervisor.jobs WHERE status = 'done' LIMIT 1) one, generate_series(1, ${FINISHED}) n`);
  // As a forgotten session holds up the cleaning.
  const open = postgres.session();
  open.stdin.write('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM qwen_supervisor.jobs;\n');
  console.log(`beside ${FINISHED} finished jobs and a transaction that stays open: ${await claims(machines[0])}`);
  open.kill();
  postgres.psql('VACUUM ANALYZE');
  console.log(`after that and a vacuum: ${await claims(machines[0])}`);
  await machines[0].stop();
} finally {
  for (const { process } of started) process.kill('SIGKILL');
  postgres.remove();
}
