/**
 * What more machines are worth, what they cost the database while nothing is drawn, and what a claim takes among many
 * finished jobs. usage: npm run bench:machines, with Node 22.12 or newer and Debian's postgresql-15 (ten minutes).
 * Results are recorded in docs/benchmarks.md.
 */
import { execFileSync, spawn } from 'node:child_process';
import { chownSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const bin = join(here, '../../bin/qwen-supervisor.js');
const worker = join(here, '../fixtures/children/hashing-worker.mjs');
const POSTGRES = '/usr/lib/postgresql/15/bin';
const HOSTS = 5;
/** Of a picture: two seconds that need no processor. */
const [STEPS, STEP_MS] = [20, 100];
const PICTURES_EACH = 15;
const IDLE_SECONDS = 60;
const FINISHED = 100_000;
const CLAIMS = 300;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const folder = mkdtempSync(join(tmpdir(), 'qwen-supervisor-bench-'));
const data = join(folder, 'postgres');
const owner =
  process.getuid?.() === 0
    ? Object.fromEntries(
        [
          ['uid', '-u'],
          ['gid', '-g'],
        ].map(([name, of]) => [name, Number(execFileSync('id', [of, 'postgres']))]),
      )
    : {};
const postgres = (program, ...args) =>
  execFileSync(join(POSTGRES, program), args, { ...owner, cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] });
const psql = (query) =>
  execFileSync(join(POSTGRES, 'psql'), ['-h', folder, '-U', 'postgres', '-At', '-c', query], { encoding: 'utf8' });
const store = `postgres://postgres@localhost/postgres?host=${folder}`;
const shared = join(folder, 'shared');

const started = [];

class Machine {
  static async start(name) {
    const machine = new Machine();
    const args = [bin, 'start', '--port', '0', '--data-dir', join(folder, name), '--store', store];
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

/** Seconds of a processor that the server has used so far, all of its processes. Reference: proc(5), stat. */
function serverSeconds() {
  const [postmaster] = readFileSync(join(data, 'postmaster.pid'), 'utf8').split('\n');
  const ticks = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        const [, rest] = /\) (.*)$/s.exec(readFileSync(`/proc/${pid}/stat`, 'utf8')) ?? [];
        const fields = rest.split(' ');
        const own = Number(fields[11]) + Number(fields[12]);
        // With those of its processes that have ended.
        if (pid === postmaster) return own + Number(fields[13]) + Number(fields[14]);
        return fields[1] === postmaster ? own : 0;
      } catch (error) {
        // It has ended meanwhile.
        if (error.code === 'ENOENT' || error.code === 'ESRCH') return 0;
        throw error;
      }
    });
  return ticks.reduce((sum, one) => sum + one, 0) / 100;
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
  if (owner.uid !== undefined) chownSync(folder, owner.uid, owner.gid);
  postgres('initdb', '-D', data, '-U', 'postgres', '-A', 'trust', '--no-locale', '-E', 'UTF8');
  postgres('pg_ctl', '-D', data, '-w', '-o', `-k ${folder} -c listen_addresses=`, '-l', join(folder, 'log'), 'start');
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
  const before = serverSeconds();
  await sleep(IDLE_SECONDS * 1000);
  const idle = (100 * (serverSeconds() - before)) / IDLE_SECONDS;
  console.log(`${HOSTS} idle supervisors: the server uses ${idle.toFixed(2)} % of a core`);
  await Promise.all(machines.splice(1).map((machine) => machine.stop()));
  console.log(`a picture of one step, beside the step: ${await claims(machines[0])}`);
  psql(`INSERT INTO qwen_supervisor.jobs (id, status, request, width, height, prompt, priority, rank, source, work, entry,
      created_at, finished_at, image)
    SELECT 'job_' || substr(md5(n::text), 1, 24), 'done', request, width, height, prompt, priority, rank, source, work,
      gen_random_uuid(), created_at, finished_at, (image::jsonb || jsonb_build_object('id', n::text))::text
    FROM (SELECT * FROM qwen_supervisor.jobs WHERE status = 'done' LIMIT 1) one, generate_series(1, ${FINISHED}) n`);
  // As a forgotten session holds up the cleaning.
  const open = spawn(join(POSTGRES, 'psql'), ['-h', folder, '-U', 'postgres'], {
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  open.stdin.write('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM qwen_supervisor.jobs;\n');
  console.log(`beside ${FINISHED} finished jobs and a transaction that stays open: ${await claims(machines[0])}`);
  open.kill();
  psql('VACUUM ANALYZE');
  console.log(`after that and a vacuum: ${await claims(machines[0])}`);
  await machines[0].stop();
} finally {
  for (const { process } of started) process.kill('SIGKILL');
  postgres('pg_ctl', '-D', data, '-m', 'immediate', 'stop');
  rmSync(folder, { recursive: true, force: true, maxRetries: 10 });
}
