/** What the store does not know of a job: how far it is while it runs, place and time while it waits. */
import type { Job } from '@qwen-supervisor/protocol/job';
import { progressOf, queuedEta, runningEta } from '../core/expected-times.js';
import { runs, type State } from '../core/state.js';
import type { OtherMachines } from '../other-machines.js';
import type { Place } from './queue-line.js';

/** What is known of the machines that share the queue. */
export type Others = Pick<OtherMachines, 'progressOf' | 'workers' | 'forget'>;

interface Known {
  state: State;
  atMs: number;
  /** In line. */
  place: Place | undefined;
  others: Others;
}

export function liveJob(job: Job, known: Known): Job {
  if (job.status === 'running') return { ...job, ...liveRun(job, known) };
  const { state, atMs, place, others } = known;
  if (job.status !== 'queued' || !place) return job;
  return { ...job, position: place.position, eta: queuedEta(state, atMs, place, others.workers) };
}

/** How far a running job is, here or on another machine. */
function liveRun(job: Job, { state, atMs, others }: Known): Partial<Job> {
  const run = runs(state).find((one) => one.job.id === job.id);
  if (run) return { step: run.step, progress: progressOf(run), eta: runningEta(state, atMs, job.id) };
  const told = others.progressOf(job.id);
  if (told === null) return {};
  if (told.type === 'decoding') return { step: job.steps, progress: 1 };
  const { step, steps, eta } = told;
  return { step, eta, progress: told.type === 'progress' ? told.progress : step / steps };
}
