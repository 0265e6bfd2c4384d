/** What clients do in a simulated world. */
import type { Job } from '@qwen-supervisor/protocol/job';
import type { JobRequest } from '@qwen-supervisor/protocol/job-request';
import { expect } from 'vitest';
import { POISON } from './simulated-worker.js';
import type { World } from './simulated-world.js';
import { SIDES } from './swarm.js';

/** A client sends a request; it is acknowledged unless the disk is full. */
export async function submit(world: World): Promise<void> {
  if (world.diskFull || world.accepted.length >= world.options.jobs) return;
  const prompt = world.random() < 0.1 ? POISON : 'fox';
  const side = SIDES[world.random() < 0.8 ? 0 : 1];
  const size = { width: side, height: side, numInferenceSteps: world.options.steps, trueCfgScale: 4 };
  const request: JobRequest = {
    prompt,
    negativePrompt: ' ',
    ...size,
    seed: 1,
    initImage: null,
    strength: null,
    mask: null,
  };
  const { jobs } = await world.store.put(
    [{ request, priority: Math.floor(world.random() * 3), source: 'api', retryOf: null, owner: null }],
    null,
    1e6,
    1e6,
  );
  world.accepted.push((jobs[0] as Job).id);
  world.send({ type: 'job-queued', atMs: world.now });
}

export async function cancelSomething(world: World): Promise<void> {
  const id = world.accepted[Math.floor(world.random() * world.accepted.length)];
  if (id === undefined) return;
  world.later(async () => {
    await world.store.cancel(id);
    world.send({ type: 'cancel-running', atMs: world.now, jobId: id, keep: world.random() < 0.5 });
  });
}

/** A queued job gets another place; all others keep theirs among themselves. */
export async function moveSomething(world: World): Promise<void> {
  const before = (await world.store.waiting(1e6)).map(({ id }) => id);
  const [moved, other] = [0, 1].map(() => before[Math.floor(world.random() * before.length)]);
  if (moved === undefined || other === undefined || moved === other) return;
  await world.store.move(
    moved,
    world.random() < 0.5 ? { before: other } : { priority: Math.floor(world.random() * 3) },
  );
  const after = (await world.store.waiting(1e6)).map(({ id }) => id);
  const others = (ids: string[]) => ids.filter((id) => id !== moved);
  expect(others(after), 'a move has moved others').toEqual(others(before));
}
