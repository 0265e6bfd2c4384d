/**
 * The core in random histories; after every event all promises are checked.
 *
 *   SEEDS=17 npx vitest run test/supervisor/simulation.test.ts     replays one history
 *   npm run check:full                                             ten thousand of them
 */
import { expect, test } from 'vitest';
import { World } from './simulated-world.js';

const COUNT = process.env.FULL ? 10_000 : 200;
const SEEDS = process.env.SEEDS
  ? process.env.SEEDS.split(',').map(Number)
  : Array.from({ length: COUNT }, (_, i) => i + 1);
/** One test for many histories: ten thousand test titles help nobody. */
const BATCH = 100;
const batches = Array.from({ length: Math.ceil(SEEDS.length / BATCH) }, (_, i) =>
  SEEDS.slice(i * BATCH, (i + 1) * BATCH),
);

async function live(seed: number): Promise<void> {
  const world = new World(seed);
  try {
    world.send({ type: 'start', atMs: 0 });
    for (let i = 0; i < 250; i++) {
      await world.happen(false);
      await world.check();
    }
    // Then nothing bad happens any more, and the operator restarts what was given up: every job ends.
    for (let i = 0; i < 4000 && (await world.jobs()).some((job) => !job.finishedAt); i++) {
      if (world.state.children.inference.state === 'failed') world.restartWorker();
      await world.happen(true);
      await world.check();
    }
    const jobs = await world.jobs();
    expect(
      jobs.filter((job) => !job.finishedAt),
      'a job never ends',
    ).toEqual([]);
    for (const job of jobs) {
      expect(world.doneTimes.get(job.id) ?? 0, `${job.status} but completed`).toBe(job.status === 'done' ? 1 : 0);
      if (job.status === 'failed') expect(job.error?.code).toBe('JOB_POISONED');
      // Its second step kills; it may have been interrupted after the first.
      if (job.prompt === 'poison' && job.status === 'done') expect(job.step, 'a poison job is done').toBeLessThan(2);
    }
    world.send({ type: 'stop', atMs: world.now, finish: world.random() < 0.5 });
    for (let i = 0; i < 20; i++) await world.happen(true);
    world.advance(60_000);
    expect([world.worker, world.api], 'a process is left after the stop').toEqual([null, null]);
    expect(world.exits, 'the supervisor ends once').toBe(1);
  } catch (error) {
    const replay = `SEEDS=${seed} npx vitest run test/supervisor/simulation.test.ts`;
    throw new Error(`seed ${seed}: ${(error as Error).message}\nreplay with: ${replay}`, { cause: error });
  }
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
