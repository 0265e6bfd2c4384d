/** What a worker's process does in a simulated world. */
import type { Job } from '@qwen-supervisor/protocol/job';
import { tokensOf } from '@qwen-supervisor/protocol/job-request';
import type { Vitals, WorkerName } from '@qwen-supervisor/protocol/status';
import type { Event } from '@qwen-supervisor/supervisor/core/events';
import type { World } from './simulated-world.js';
import { MODEL_BYTES } from './swarm.js';

/** Prompts that bring the worker down at their second step. */
export const POISON = 'poison';
/** How long a process takes to come up and connect. */
const BOOT_MS = 500;

export interface Worker {
  name: WorkerName;
  incarnation: number;
  phase: 'booting' | 'loading' | 'idle' | 'drawing';
  /** When this phase, or the current step, began. */
  sinceMs: number;
  run: { job: Job; attempt: number; step: number; last: number; stepMs: number } | null;
  /** Null for a healthy one. */
  ill: 'silent' | 'does nothing' | 'loops' | 'has said fatal' | null;
  takenBytes: number;
  /** Time that it has computed, and read; milliseconds. */
  computedMs: number;
  readMs: number;
  /** It was killed by the supervisor, which may take a while. */
  askedToStop: boolean;
}

/** In this time. */
export function work(world: World, worker: Worker, ms: number): void {
  if (worker.ill === 'silent') return;
  const { name, incarnation } = worker;
  const works = worker.phase === 'loading' || worker.phase === 'drawing';
  if (works && worker.ill !== 'does nothing') worker.computedMs += ms;
  if (worker.phase === 'loading' && worker.ill === null) worker.readMs += ms;
  if (worker.phase !== 'booting') world.say(name, incarnation, { type: 'beat', vitals: vitalsOf(world, worker) });
  if (worker.ill !== null) return;
  if (worker.phase === 'booting' && world.now - worker.sinceMs >= BOOT_MS) {
    Object.assign(worker, { phase: 'loading', sinceMs: world.now });
    world.say(name, incarnation, { type: 'connected' });
  } else if (worker.phase === 'loading') load(world, worker);
  else if (worker.phase === 'drawing') draw(world, worker);
}

function load(world: World, worker: Worker): void {
  const { loadMs, stepMs, estimate } = world.options;
  const { name, incarnation, sinceMs } = worker;
  const told = { worker: name, incarnation, atMs: world.now };
  const share = Math.min(1, (world.now - sinceMs) / loadMs);
  const progress = { component: 'transformer', bytesDone: share * 1e9, bytesTotal: 1e9 } as const;
  world.messages.push({ type: 'loading', ...told, progress });
  if (share < 1) return;
  worker.phase = 'idle';
  const msPerToken = (stepMs * estimate) / tokensOf({ width: 128, height: 128 });
  world.messages.push({ type: 'loaded', ...told, seconds: 1, msPerToken });
}

function draw(world: World, worker: Worker): void {
  const { name, run, incarnation } = worker;
  if (!run || world.now - worker.sinceMs < run.stepMs) return;
  const { job, attempt } = run;
  if (run.step >= run.last)
    return finish(world, worker, { status: 'done', step: run.step, imageId: job.id, file: '', sha256: '', bytes: 1 });
  if (job.prompt === POISON && run.step === 1) return world.die(name, null, 'SIGABRT');
  run.step++;
  Object.assign(worker, { sinceMs: world.now });
  run.stepMs = run.step === run.last ? 0 : nextStepMs(world);
  world.checkpoints.set(job.id, run.step);
  const told = { worker: name, incarnation, atMs: world.now, jobId: job.id, attempt } as const;
  world.messages.push({ type: 'job-step', ...told, step: run.step, preview: null });
}

export function finish(
  world: World,
  worker: Worker,
  outcome: Extract<Event, { type: 'job-finished' }>['outcome'],
): void {
  const { name, run, incarnation } = worker;
  if (!run) return;
  const { job, attempt } = run;
  const ended = { worker: name, incarnation, atMs: world.now, jobId: job.id, attempt } as const;
  world.messages.push({ type: 'job-finished', ...ended, outcome });
  Object.assign(worker, { run: null, phase: 'idle', sinceMs: world.now });
}

export function nextStepMs(world: World): number {
  return world.options.stepMs * (0.5 + world.random());
}

function vitalsOf({ options }: World, { phase, takenBytes, readMs, computedMs, run }: Worker): Vitals {
  // As the real worker: the step of the job before is shown until the next one has begun.
  const step = run?.step ?? (phase === 'idle' ? options.steps : 0);
  const rssBytes = MODEL_BYTES + takenBytes;
  return { rssBytes, readBytes: readMs, cpuSeconds: computedMs / 1000, step, stepShare: 0, work: 0 };
}
