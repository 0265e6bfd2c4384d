/** What happens to the supervisor, and what it decides to do. Events carry the time and the chance that they need. */
import type { ErrorObject } from '@qwen-supervisor/protocol/errors';
import type { AttemptStart, Job } from '@qwen-supervisor/protocol/job';
import type { JobOutcome } from '@qwen-supervisor/protocol/messages';
import type { ChildName, Crash, LoadProgress, WorkerName } from '@qwen-supervisor/protocol/status';
import type { Death } from './attempt.js';
import type { ChildEffect, ChildEvent } from './child.js';

/** Of one process of a worker; ignored unless it is the current one. */
interface FromWorker {
  worker: WorkerName;
  incarnation: number;
}

/** Of one attempt at a job; ignored unless that worker is at it. */
export interface FromRun extends FromWorker {
  jobId: string;
  attempt: number;
}

export type Event = { atMs: number } & (
  | { type: 'start' }
  /** `orderly`: running jobs may end first, if the operator wants that. */
  | { type: 'stop'; how: 'orderly' | 'now' }
  | { type: 'restart'; name: ChildName; reason: string }
  /** Somebody wants the model in memory, or out of it until a job wants it. */
  | { type: 'load-model' }
  | { type: 'unload-model' }
  | { type: 'tick' }
  /** Of one process of a child; ignored unless it is the current one. */
  | { type: 'child'; name: ChildName; incarnation: number; event: ChildEvent }
  | ({ type: 'loading'; progress: LoadProgress } & FromWorker)
  | ({ type: 'loaded'; seconds: number; msPerToken: number } & FromWorker)
  | { type: 'job-queued' }
  | { type: 'claimed'; worker: WorkerName; job: Job | null }
  | ({ type: 'job-begun' } & FromRun & AttemptStart)
  | ({ type: 'job-step'; step: number; preview: Uint8Array | null } & FromRun)
  | ({ type: 'job-decoding' } & FromRun)
  | ({ type: 'job-finished'; outcome: JobOutcome } & FromRun)
  /** `keep`: with the picture that it has reached. */
  | { type: 'cancel-running'; jobId: string; keep: boolean }
  /** Nothing that the store says from now on is sure to be true. */
  | { type: 'store-failed'; error: ErrorObject }
);

export type Effect =
  | ChildEffect
  /** No worker will do a job until somebody repairs one: those who wait are told. */
  | { type: 'announce-failure'; reason: string }
  /** The first job in line that this worker is to take. */
  | { type: 'claim'; worker: WorkerName }
  | { type: 'dispatch'; worker: WorkerName; job: Job; attempt: number }
  | { type: 'cancel-run'; worker: WorkerName; jobId: string; attempt: number; keep: boolean }
  | { type: 'begin'; worker: WorkerName; jobId: string; attempt: number; start: AttemptStart }
  | { type: 'tell-progress'; jobId: string }
  | { type: 'tell-step'; jobId: string; step: number; steps: number; preview: Uint8Array | null }
  | { type: 'tell-decoding'; jobId: string }
  /** Back into the queue: the attempt ended without an outcome. */
  | { type: 'release'; jobId: string; attempt: number; reason: string; death: Death; step: number }
  | { type: 'finish'; jobId: string; attempt: number; step: number; outcome: JobOutcome }
  /** An unplanned exit, to be kept with what the shell knows of the child's output. */
  | { type: 'record-crash'; crash: Omit<Crash, 'tail' | 'threads'> }
  | { type: 'exit'; error: ErrorObject | null };
