/** What the worker's two threads share: a few integers, and messages. */
import type { JobRequest } from '@qwen-supervisor/protocol/job-request';
import type { JobOutcome, WorkerReports } from '@qwen-supervisor/protocol/messages';
import type { Fit } from './job-checkpoint.js';
import type { Preview } from './recipe/preview.js';

/** Indices into the shared Int32Array. The main thread writes those of its progress, the control thread the others. */
export const FLAG = {
  /** Number of the run that is to be cancelled. */
  cancelledRun: 0,
  /** 1: stop at the next step. */
  stopping: 1,
  /** Completed steps of the current run. */
  step: 2,
  /** Number of the run whose picture is wanted as far as it is. */
  interruptedRun: 3,
  /** Counts whatever was completed: runs of sessions, layers, pieces of files. */
  work: 4,
  /** Of the step after the completed ones, in thousandths. */
  stepShare: 5,
} as const;

export const FLAG_COUNT = 6;

export interface Run {
  /** Counts the runs of this process; names one for a cancel. */
  number: number;
  jobId: string;
  attempt: number;
  request: JobRequest;
  /** Steps that earlier attempts have completed. */
  step: number;
}

/** Control thread → main thread. */
export type ControlMessage = { type: 'run'; run: Run } | { type: 'stop' } | { type: 'exit'; code: number };

/** Main thread → control thread. */
export type MainMessage =
  | { type: 'loading'; progress: Parameters<WorkerReports['loading']>[0] }
  | { type: 'loaded'; seconds: number; msPerToken: number }
  | ({ type: 'fatal' } & Parameters<WorkerReports['fatal']>[0] & { exitCode: number })
  | { type: 'begun'; run: Run; fit: Fit; step: number; startedOverReason: string | null }
  /** `latents`: a copy, where this step is to be kept as a checkpoint. */
  | { type: 'step'; run: Run; step: number; latents: Float32Array | null; preview: Preview | null }
  | { type: 'decoding'; run: Run }
  | { type: 'finished'; run: Run; outcome: JobOutcome }
  /** Nothing more will come: the process may end as soon as all messages are sent. */
  | { type: 'stopped' };

/** What the control thread is started with. */
export interface ControlData {
  flags: Int32Array;
  socket: string;
  token: string;
  dataDir: string;
  beatMs: number;
  /** Id of the model. */
  model: string;
}
