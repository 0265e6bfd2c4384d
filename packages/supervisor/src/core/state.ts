/** What the supervisor knows, and what can be read off it. Pure. */
import { CodedError, type ErrorObject, workerGivenUp } from '@qwen-supervisor/protocol/errors';
import type { Job } from '@qwen-supervisor/protocol/job';
import type { ChildName, LoadProgress, WorkerName } from '@qwen-supervisor/protocol/status';
import { type Child, type ChildLimits, newChild } from './child.js';

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
  /** How long steps of late have taken here for what was computed (see `workOf`); null before the first job ended. */
  jobMsPerWork: number | null;
  /** What jobs of late took before and after their steps: text, parts of the model that are loaded, the picture. */
  besideMs: { before: number; after: number };
  /** `wanted`: the store may hold a job for it that no claim has seen. A claim under way may have come too early. */
  claim: 'none' | 'wanted' | 'under-way' | 'under-way-and-wanted';
}

export interface State {
  /** `finishing`: no new job is begun, and when the last running one has ended everything stops. */
  phase: 'running' | 'finishing' | 'stopping' | 'ended';
  api: Child;
  /** One process per device, in the operator's order. */
  workers: Readonly<Partial<Record<WorkerName, Worker>>>;
  /** The error that ends the supervisor, if one does. */
  exitError: ErrorObject | null;
}

export interface Limits {
  api: ChildLimits;
  workers: Readonly<Partial<Record<WorkerName, ChildLimits>>>;
  /** What an orderly stop does with running jobs. */
  onStop: 'checkpoint' | 'finish';
}

export function initialState(names: WorkerName[]): State {
  const worker = (name: WorkerName): Worker => ({
    child: newChild(name),
    run: null,
    load: null,
    loadSeconds: null,
    warmUpMsPerWork: null,
    jobMsPerWork: null,
    besideMs: { before: 0, after: 0 },
    claim: 'none',
  });
  return {
    phase: 'running',
    api: newChild('api'),
    workers: Object.fromEntries(names.map((name) => [name, worker(name)])),
    exitError: null,
  };
}

export function namesOf({ workers }: State): WorkerName[] {
  return Object.keys(workers) as WorkerName[];
}

export function workersOf({ workers }: State): Worker[] {
  return Object.values(workers) as Worker[];
}

/** The workers, then the API. */
export function childrenOf(state: State): Child[] {
  return [...workersOf(state).map(({ child }) => child), state.api];
}

export function workerOf({ workers }: State, name: WorkerName): Worker {
  return workers[name] as Worker;
}

export function childOf(state: State, name: ChildName): Child {
  return name === 'api' ? state.api : workerOf(state, name).child;
}

/** Memory that a worker holds, bytes. */
export function memoryOf({ child: { pid, vitals, device } }: Worker): { machineBytes: number; cardBytes: number } {
  if (pid === null) return { machineBytes: 0, cardBytes: 0 };
  return { machineBytes: vitals?.rssBytes ?? 0, cardBytes: device.heldBytes };
}

export function withChild(state: State, child: Child): State {
  const { name } = child;
  if (name === 'api') return { ...state, api: child };
  return withWorker(state, name, { child });
}

export function withWorker(state: State, name: WorkerName, change: Partial<Worker>): State {
  return { ...state, workers: { ...state.workers, [name]: { ...workerOf(state, name), ...change } } };
}

export function runs(state: State): Run[] {
  return workersOf(state).flatMap(({ run }) => run ?? []);
}

/** The worker that holds this job; null if none does. */
export function holderOf(state: State, jobId: string): WorkerName | null {
  return namesOf(state).find((name) => workerOf(state, name).run?.job.id === jobId) ?? null;
}

/** Whether it can take a job now. */
export function isFree({ child, run }: Worker): boolean {
  return child.phase === 'ready' && run === null;
}

/** The earliest moment at which a `tick` has something to do. */
export function nextDeadline(state: State): number | null {
  const deadlines = childrenOf(state).flatMap(({ deadlineMs }) => deadlineMs ?? []);
  return deadlines.length === 0 ? null : Math.min(...deadlines);
}

/** Why no new job is accepted now; null if they are. `othersDraw`: machines that share the queue. */
export function submitRefusal(state: State, othersDraw: boolean): CodedError | null {
  if (state.phase !== 'running') return new CodedError('SUPERVISOR_STOPPING');
  return othersDraw ? null : givenUp(state);
}

/** What everybody hears who asks for a picture when every worker has been given up; null while one has not. */
export function givenUp(state: State): CodedError | null {
  const reason = whyGivenUp(state);
  return reason === null ? null : workerGivenUp(reason);
}

export function whyGivenUp(state: State): string | null {
  const all = workersOf(state);
  if (all.some(({ child }) => child.phase !== 'failed')) return null;
  return [...new Set(all.map(({ child }) => child.reason))].join('; ');
}

/** Neither draws nor is about to. */
export function isIdle({ phase }: State, worker: Worker): boolean {
  return isFree(worker) && worker.claim === 'none' && (phase === 'running' || phase === 'finishing');
}

/** Why the model cannot be given back now; null if it can, or if nothing is loaded. */
export function unloadRefusal(state: State): CodedError | null {
  const all = workersOf(state);
  const isAnyIdle = all.some((worker) => isIdle(state, worker));
  // One that waits holds nothing that could be given back.
  const inUse = all.find(
    (worker) => !isUnloaded(worker) && !isIdle(state, worker) && !(isAnyIdle && isWaiting(worker)),
  );
  if (inUse === undefined) return null;
  const { name, phase } = inUse.child;
  return new CodedError('MODEL_IN_USE', `${all.length === 1 ? 'the worker' : name} is ${phase}`);
}

function isWaiting({ child: { phase } }: Worker): boolean {
  return phase === 'backing-off' || phase === 'blocked';
}

function isUnloaded({ child: { phase } }: Worker): boolean {
  return phase === 'stopped' || phase === 'failed';
}
