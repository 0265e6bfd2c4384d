/** What the supervisor knows, and what can be read off it. Pure. */
import { CodedError, type ErrorObject, workerGivenUp } from '@qwen-supervisor/protocol/errors';
import type { Job } from '@qwen-supervisor/protocol/job';
import { CHILD_NAMES, type ChildName, type LoadProgress } from '@qwen-supervisor/protocol/status';
import { type Child, type ChildLimits, newChild } from './child.js';

/** Every child but the API: one process per device. */
export type WorkerName = Exclude<ChildName, 'api'>;
export const WORKER_NAMES = CHILD_NAMES.filter((name) => name !== 'api') as WorkerName[];

/** The attempt in a worker's hands. */
export interface Run {
  job: Job;
  attempt: number;
  /** Completed steps. */
  step: number;
  /** Of the step after those, 0 to 1. */
  stepShare: number;
  /** Where this attempt began. */
  firstStep: number;
  sinceMs: number;
  /** When the first and the last step of this attempt were completed. */
  firstStepAtMs: number;
  lastStepAtMs: number;
}

export interface Worker {
  child: Child;
  run: Run | null;
  /** Of the load under way, or of the last one. */
  load: LoadProgress | null;
  loadSeconds: number | null;
  /** How long the warm-up of the last load took for what was computed (see `workOf`); null before. */
  warmUpMsPerWork: number | null;
}

export interface State {
  /** `finishing`: no new job is begun, and when the last running one has ended everything stops. */
  phase: 'running' | 'finishing' | 'stopping' | 'ended';
  api: Child;
  workers: Readonly<Record<WorkerName, Worker>>;
  /** `wanted`: the store may hold a job that no claim has seen. A claim under way may have come too early to see it. */
  claim: 'none' | 'wanted' | 'under-way' | 'under-way-and-wanted';
  /** How long jobs of late have taken for what is to be computed (see `workOf`); null before the first has ended. */
  jobMsPerWork: number | null;
  /** The error that ends the supervisor, if one does. */
  exitError: ErrorObject | null;
}

export interface Limits {
  children: Record<ChildName, ChildLimits>;
  /** What an orderly stop does with running jobs. */
  onStop: 'checkpoint' | 'finish';
}

export function initialState(): State {
  const worker = (name: WorkerName): Worker => ({
    child: newChild(name),
    run: null,
    load: null,
    loadSeconds: null,
    warmUpMsPerWork: null,
  });
  return {
    phase: 'running',
    api: newChild('api'),
    workers: Object.fromEntries(WORKER_NAMES.map((name) => [name, worker(name)])) as Record<WorkerName, Worker>,
    claim: 'none',
    jobMsPerWork: null,
    exitError: null,
  };
}

export function childOf({ api, workers }: State, name: ChildName): Child {
  return name === 'api' ? api : workers[name].child;
}

/** Memory that the workers hold, bytes. */
export function workerMemory({ workers }: State): { machineBytes: number; cardBytes: number } {
  const living = WORKER_NAMES.map((name) => workers[name].child).filter(({ pid }) => pid !== null);
  return {
    machineBytes: living.reduce((sum, { vitals }) => sum + (vitals?.rssBytes ?? 0), 0),
    cardBytes: living.reduce((sum, { device }) => sum + device.heldBytes, 0),
  };
}

export function withChild(state: State, child: Child): State {
  const { name } = child;
  if (name === 'api') return { ...state, api: child };
  return withWorker(state, name, { child });
}

export function withWorker(state: State, name: WorkerName, change: Partial<Worker>): State {
  return { ...state, workers: { ...state.workers, [name]: { ...state.workers[name], ...change } } };
}

export function runs({ workers }: State): Run[] {
  return WORKER_NAMES.flatMap((name) => workers[name].run ?? []);
}

/** The worker that holds this job; null if none does. */
export function holderOf({ workers }: State, jobId: string): WorkerName | null {
  return WORKER_NAMES.find((name) => workers[name].run?.job.id === jobId) ?? null;
}

/** A worker that can take a job now. */
export function freeWorker({ workers }: State): WorkerName | null {
  return WORKER_NAMES.find((name) => workers[name].child.phase === 'ready' && workers[name].run === null) ?? null;
}

/** The earliest moment at which a `tick` has something to do. */
export function nextDeadline(state: State): number | null {
  const deadlines = CHILD_NAMES.map((name) => childOf(state, name).deadlineMs).filter((at) => at !== null);
  return deadlines.length === 0 ? null : Math.min(...deadlines);
}

/** Why no new job is accepted now; null if they are. */
export function submitRefusal(state: State): CodedError | null {
  return state.phase === 'running' ? givenUp(state) : new CodedError('SUPERVISOR_STOPPING');
}

/** What everybody hears who asks for a picture when every worker has been given up; null while one has not. */
export function givenUp({ workers }: State): CodedError | null {
  const failed = WORKER_NAMES.filter((name) => workers[name].child.phase === 'failed');
  if (failed.length < WORKER_NAMES.length) return null;
  return workerGivenUp(failed.map((name) => workers[name].child.reason).join('; '));
}

/** Neither draws nor is about to. */
export function isIdle({ phase, workers, claim }: State, name: WorkerName): boolean {
  const { child, run } = workers[name];
  return child.phase === 'ready' && run === null && claim === 'none' && (phase === 'running' || phase === 'finishing');
}

/** Why the model cannot be given back now; null if it can, or if nothing is loaded. */
export function unloadRefusal(state: State): CodedError | null {
  const inUse = WORKER_NAMES.find((name) => !isUnloaded(state.workers[name]) && !isIdle(state, name));
  if (inUse === undefined) return null;
  return new CodedError('MODEL_IN_USE', `the worker is ${state.workers[inUse].child.phase}`);
}

function isUnloaded({ child: { phase } }: Worker): boolean {
  return phase === 'stopped' || phase === 'failed';
}
