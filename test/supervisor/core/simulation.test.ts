/**
 * The core in random histories; after every moment all promises are checked.
 *
 *   SEEDS=17 npx vitest run simulation     replays one history
 *   npm run check:full                     ten thousand of them
 */
import { expect, test } from 'vitest';
import { check } from './promises.js';
import { World } from './simulated-world.js';
import { describeWorld } from './swarm.js';

const COUNT = process.env.FULL ? 10_000 : Number(process.env.HISTORIES ?? 150);
const SEEDS = process.env.SEEDS
  ? process.env.SEEDS.split(',').map(Number)
  : Array.from({ length: COUNT }, (_, i) => i + 1);
/** One test for many histories: ten thousand test titles help nobody. */
const BATCH = 100;
const batches = Array.from({ length: Math.ceil(SEEDS.length / BATCH) }, (_, i) =>
  SEEDS.slice(i * BATCH, (i + 1) * BATCH),
);
/** Moments with faults, and the most that a calm world may need to end all jobs. */
const WILD = 250;
const CALM_MAX = 20_000;

async function live(seed: number): Promise<void> {
  const world = new World(seed);
  try {
    world.start();
    for (let i = 0; i < WILD; i++) {
      await world.happen(false);
      await check(world);
    }
    await calmDown(world);
    const jobs = await world.jobs();
    for (const job of jobs) {
      expect(world.doneTimes.get(job.id) ?? 0, `${job.status} but completed`).toBe(job.status === 'done' ? 1 : 0);
      if (job.status === 'failed') expect(job.error?.code).toBe('JOB_POISONED');
      // Its second step kills; it may have been interrupted after the first, or have no second.
      if (job.prompt === 'poison' && job.status === 'done') expect(job.step, 'a poison job is done').toBeLessThan(2);
    }
    world.send({ type: 'stop', atMs: world.now, how: 'orderly' });
    for (let i = 0; i < 20; i++) await world.happen(true);
    world.advance(120_000);
    expect([world.workers.size, world.api], 'a process is left after the stop').toEqual([0, null]);
    expect(world.exits, 'the supervisor ends once').toBe(1);
  } catch (error) {
    const replay = `replay with: SEEDS=${seed} npx vitest run simulation`;
    const report = [`seed ${seed}: ${(error as Error).message}`, describeWorld(world.options), ...world.story, replay];
    throw new Error(report.join('\n'), { cause: error });
  }
}

/** Nothing bad happens any more, and the operator restarts what was given up: every job ends. */
async function calmDown(world: World): Promise<void> {
  for (let i = 0; i < CALM_MAX; i++) {
    const open = (await world.jobs()).filter((job) => !job.finishedAt);
    if (open.length === 0 && world.exits === 0) return;
    for (const name of world.names) if (world.child(name).phase === 'failed') world.restartWorker(name);
    await world.happen(world.exits === 0);
    await check(world);
  }
  const stuck = (await world.jobs()).find((job) => !job.finishedAt);
  const workers = world.names.map((name) => `${name} ${world.child(name).phase}, ${world.child(name).reason}`);
  expect.fail(`${stuck?.id ?? 'the supervisor'} is stuck: ${stuck?.status}; ${workers.join('; ')}`);
}

test.each(batches.map((seeds) => [seeds[0], seeds.at(-1), seeds] as const))(
  'random histories with the seeds %i to %i keep every promise',
  async (_first, _last, seeds) => {
    for (const seed of seeds) {
      await live(seed);
      // What the collector has found is given back only when the event loop turns.
      await new Promise((resolve) => setImmediate(resolve));
    }
  },
  600_000,
);
