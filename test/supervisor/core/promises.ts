/** What the supervisor promises, looked at in a simulated world. */
import type { ChildName, WorkerName } from '@qwen-supervisor/protocol/status';
import { runs } from '@qwen-supervisor/supervisor/core/state';
import { expect } from 'vitest';
import type { World } from './simulated-world.js';
import { MODEL_BYTES } from './swarm.js';

/** Whatever has happened, these hold. */
export async function check(world: World): Promise<void> {
  const jobs = await world.jobs();
  expect(jobs.length, 'an acknowledged job is gone').toBe(world.accepted.length);
  expect(Math.max(0, ...world.doneTimes.values()), 'a job was completed twice').toBeLessThanOrEqual(1);
  const running = jobs.filter(({ status }) => status === 'running').length;
  expect(running, 'more jobs run than there are workers').toBeLessThanOrEqual(world.names.length);
  for (const name of world.names) checkWorker(world, name);
  for (const run of runs(world.state)) world.told.set(run.job.id, Math.max(run.step, world.told.get(run.job.id) ?? 0));
  for (const job of jobs)
    if (job.status === 'queued' && world.options.lost === 0)
      expect(job.step, 'the step fell').toBeGreaterThanOrEqual(world.told.get(job.id) ?? 0);
}

function checkWorker(world: World, name: WorkerName): void {
  const { phase: state, deadlineMs } = world.child(name);
  const hasProcess = !['stopped', 'backing-off', 'blocked', 'failed'].includes(state);
  expect(world.workers.has(name), `a process in state ${state}`).toBe(hasProcess);
  if (['starting', 'loading', 'stopping', 'dying', 'killing', 'backing-off', 'blocked'].includes(state))
    expect(deadlineMs, `nothing will ever happen in state ${state}`).not.toBeNull();
  const { max, windowMs } = world.options.limits;
  const charged = (world.charged.get(name) ?? []).filter((at) => at > world.now - windowMs).length;
  if (state !== 'failed' && world.state.phase === 'running')
    expect(charged, 'more restarts than the budget allows').toBeLessThanOrEqual(max as number);
}

/** Only what is ill, or was asked to stop, is ever killed. */
export function checkKill(world: World, name: ChildName): void {
  const { options } = world;
  const worker = name === 'api' ? undefined : world.workers.get(name);
  const { ending, reason } = name === 'api' ? world.state.api : world.child(name);
  world.note(`${name} is killed: ${reason}`);
  if (name === 'api' || !worker || worker.ill || worker.askedToStop || options.lost > 0) return;
  const { hardBytes } = options.limits;
  if (hardBytes !== null && MODEL_BYTES + worker.takenBytes > hardBytes) return;
  if (ending?.to !== 'judgement') return;
  expect.fail(`a worker that ${worker.phase === 'drawing' ? 'computes' : 'is well'} was killed: ${reason}`);
}
