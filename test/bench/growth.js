/**
 * What many machines cost the database that they share: each is the store of a supervisor, all in this process, and each
 * card holds a job that gets on by itself. No picture is drawn. usage: npm run bench:growth, with Node 22.12 or newer
 * and Debian's postgresql-15 (six minutes). Results are recorded in docs/benchmarks.md.
 */
import { migratePostgres, openPostgresJobStore } from '@qwen-supervisor/supervisor/jobs/open-postgres';
import { PrivatePostgres } from './private-postgres.js';

/** Cards of each machine, and seconds that a picture takes on one. */
const [CARDS, PICTURE_SECONDS] = [8, 20];
const MACHINES = [5, 25, 50];
const SECONDS = 30;
/** A store is opened at most so often at a time: PostgreSQL makes a process for each connection. */
const AT_ONCE = 5;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const REQUEST = {
  prompt: 'bench',
  negativePrompt: '',
  width: 1024,
  height: 1024,
  numInferenceSteps: 20,
  trueCfgScale: 4,
  seed: 1,
  initImage: null,
  strength: null,
  mask: null,
};
const ORDER = { request: REQUEST, priority: 0, source: 'native', retryOf: null, owner: null };
const TAKES_ANY = { maxPixels: null, leaves: [] };
const START = { step: 0, startedOverReason: null, device: 'cuda:0', model: 'qwen-image' };

const postgres = new PrivatePostgres();
let lost = 0;
let away = 0;

class Machine {
  #isOver = false;
  #cards = [];
  drawn = 0;
  /** Milliseconds that the statements of a claim took. */
  claims = [];

  static async open(name) {
    const machine = new Machine();
    const nothing = () => {};
    const workers = Array.from({ length: CARDS }, (_, i) => ({
      name: i === 0 ? 'inference' : `inference-${i + 1}`,
      state: 'busy',
      device: `cuda:${i}`,
      job: null,
      reason: 'drawing',
    }));
    const hooks = {
      report: () => ({ version: '0', url: '', model: 'qwen-image', workers }),
      onMachines: nothing,
      onProgress: nothing,
      onPictures: nothing,
      onWork: nothing,
      onJobs: nothing,
      onMissed: nothing,
      onCancel: nothing,
      onLost: () => lost++,
      onAway: (error) => {
        if (error) away++;
      },
    };
    machine.store = await openPostgresJobStore(postgres.store, `${name} ${name}`, hooks);
    return machine;
  }

  /** `tellsSteps`: once a second of each job, as a machine does that others listen to. */
  work(tellsSteps) {
    this.#isOver = false;
    this.#cards = Array.from({ length: CARDS }, () => this.#card(tellsSteps));
  }

  async #card(tellsSteps) {
    await sleep(Math.random() * 1000 * PICTURE_SECONDS);
    while (!this.#isOver) {
      await this.store.put([ORDER], null, 1e6, 1e6);
      const startMs = performance.now();
      const job = await this.store.claim(TAKES_ANY);
      this.claims.push(performance.now() - startMs);
      if (job === null) continue;
      await this.store.begin(job.id, job.attempts, START);
      for (let second = 1; second < PICTURE_SECONDS && !this.#isOver; second++) {
        await sleep(1000);
        const step = { type: 'step', jobId: job.id, step: second, steps: 20, preview: null, eta: { low: 1, high: 2 } };
        if (tellsSteps) await this.store.machines.tell(step, false);
      }
      await this.store.finish(job.id, job.attempts, 20, { status: 'cancelled' });
      this.drawn++;
    }
  }

  async rest() {
    this.#isOver = true;
    await Promise.all(this.#cards);
  }
}

async function measured(machines) {
  // Until all cards are at work.
  await sleep(1000 * PICTURE_SECONDS);
  for (const machine of machines) machine.claims = [];
  const [before, transactions] = [postgres.seconds(), commits()];
  const startMs = performance.now();
  await sleep(1000 * SECONDS);
  const seconds = (performance.now() - startMs) / 1000;
  const share = (100 * (postgres.seconds() - before)) / seconds;
  const rate = (commits() - transactions) / seconds;
  const claims = machines.flatMap((machine) => machine.claims).toSorted((a, b) => a - b);
  const claim = claims[Math.floor(claims.length / 2)] ?? Number.NaN;
  const connections = postgres.psql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'");
  const said = `${share.toFixed(0)} % of a core, ${rate.toFixed(0)} transactions a second, ${connections} connections`;
  return `${said}; a claim takes ${claim.toFixed(0)} ms`;
}

function commits() {
  return Number(postgres.psql("SELECT sum(xact_commit) FROM pg_stat_database WHERE datname = 'postgres'"));
}

try {
  postgres.start('max_connections=800');
  await migratePostgres(postgres.store);
  const machines = [];
  for (const count of MACHINES) {
    while (machines.length < count) {
      const more = Math.min(AT_ONCE, count - machines.length);
      const names = Array.from({ length: more }, (_, i) => `h${machines.length + i}`);
      machines.push(...(await Promise.all(names.map((name) => Machine.open(name)))));
    }
    for (const tellsSteps of [false, true]) {
      for (const machine of machines) machine.work(tellsSteps);
      const what = tellsSteps ? 'with their steps' : 'without their steps';
      console.log(`${count} machines of ${CARDS} cards, ${what}: ${await measured(machines)}`);
      await Promise.all(machines.map((machine) => machine.rest()));
    }
  }
  console.log(`jobs that were taken from somebody: ${lost}; times that the database did not answer: ${away}`);
  await Promise.all(machines.map(({ store }) => store.close()));
} finally {
  postgres.remove();
}
process.exit();
