/** Jobs: one job is one picture. */
import { CodedError, type ErrorObject } from './errors.js';
import type { JobRequest } from './job-request.js';

export const JOB_STATUSES = ['queued', 'running', 'done', 'failed', 'cancelled'] as const;
export type JobStatus = (typeof JOB_STATUSES)[number];

/** Terminal states are entered once and never left. */
export function isTerminal(status: JobStatus): boolean {
  return status === 'done' || status === 'failed' || status === 'cancelled';
}

/**
 * The ways in: our own API, the command line, and the dialects of others (`classic`: the first Qwen-Image launcher).
 */
export const JOB_SOURCES = ['api', 'cli', 'openai', 'sdapi', 'classic'] as const;
export type JobSource = (typeof JOB_SOURCES)[number];

export interface JobImage {
  id: string;
  /** Path below the server's root; the API puts its origin before it where a client needs an absolute address. */
  url: string;
  /** Of the file's bytes, in hexadecimal. */
  sha256: string;
}

/** Seconds until something happens, as a range. */
export interface Eta {
  low: number;
  high: number;
}

/** A job as every API shows it. */
export interface Job extends JobRequest {
  id: string;
  status: JobStatus;
  /** Completed denoising steps; kept while the job waits for another attempt, which goes on from there. */
  step: number;
  /** How much of all steps is made, 0 to 1: moves within a step, too, where one takes long. */
  progress: number;
  /** Denoising steps in all: fewer than numInferenceSteps where a picture is drawn over. */
  steps: number;
  /** Times the job was given to a worker, the current one included. */
  attempts: number;
  /** Higher goes first; equal ones in the order of arrival, unless they were moved. */
  priority: number;
  /** Place in the queue, from 1; null unless queued, and beyond the first thousand. */
  position: number | null;
  /** Until the picture is there; null where nothing can be said, and for a job that has ended. */
  eta: Eta | null;
  source: JobSource;
  /** Shared by the jobs that were sent together; null for one that came alone. */
  group: string | null;
  /** Id of the failed or cancelled job that this one repeats. */
  retryOf: string | null;
  /** The step from which the last attempt went on; null if it began at the beginning. */
  resumedAtStep: number | null;
  /** Why the last attempt could not go on where the one before had stopped. */
  startedOverReason: string | null;
  /** What has computed its steps, in this order: `cuda:0`, then `cpu` where that went on. */
  devices: string[];
  /** In a sentence: why the last of them, and what was passed over; null before any. */
  deviceReason: string | null;
  /** Of those that share the queue the machine that has computed the last of them; null where the queue is its own. */
  machine: string | null;
  /** Id of the model that has computed them; null before any. */
  model: string | null;
  /** A job that was interrupted has the picture of the step that it had reached. */
  images: JobImage[];
  /** Its picture is a favourite, which no limit removes. */
  starred: boolean;
  /** ISO 8601: since when its picture is in the trash; null where it is not. */
  trashedAt: string | null;
  error: ErrorObject | null;
  /** ISO 8601. */
  createdAt: string;
  /** ISO 8601; null until the job has ended. */
  finishedAt: string | null;
}

/** A checked request and how it wants to be treated. */
export interface JobOrder {
  request: JobRequest;
  priority: number;
  source: JobSource;
  retryOf: string | null;
  /** Whose job it is, by a digest of the key; null where no key was asked for. */
  owner: string | null;
}

/**
 * A client that repeats a request with the same key gets the jobs of the first one. `fingerprint` is a digest of what
 * it sent: the same key with another content is a mistake.
 */
export interface Idempotency {
  key: string;
  fingerprint: string;
}

/** Which jobs a list shows; null: any. */
export interface JobFilter {
  status: JobStatus | null;
  source: JobSource | null;
  group: string | null;
  /** Only these. */
  ids: string[] | null;
}

/** Which pictures a list shows; null: any. */
export interface PictureFilter {
  /** Words that are all in the prompt, in any order; small and large letters are the same. */
  search: string | null;
  starred: boolean | null;
  /** Whether it is those in the trash, or those that are not. */
  trashed: boolean;
  model: string | null;
  width: number | null;
  height: number | null;
}

/** What a person does with pictures; null: left as it is. */
export interface PictureMarks {
  starred: boolean | null;
  trashed: boolean | null;
}

/** Jobs that are cancelled together. */
export type CancelScope =
  | { scope: 'running' }
  | { scope: 'queued' }
  /** `queued`: only those that wait. */
  | { scope: 'group'; group: string; queued?: boolean };

/** The picture of a job that has ended. @throws CodedError of the job, or JOB_CANCELLED */
export function pictureOf(job: Job): JobImage {
  if (job.error) throw CodedError.from(job.error);
  const [image] = job.images;
  if (!image) throw new CodedError('JOB_CANCELLED');
  return image;
}

/** Where an attempt began. */
export interface AttemptStart {
  /** Completed steps that it found; 0 where it began at the beginning. */
  step: number;
  /** Why it did not go on where the attempt before had stopped. */
  startedOverReason: string | null;
  /** What computes it. */
  device: string;
  /** Id of the model that computes it. */
  model: string;
}

/** What happens to a job, in the order in which listeners see it. */
export type JobEvent =
  | { type: 'queued'; jobId: string; job: Job }
  /** Its place in the queue was changed. */
  | { type: 'moved'; jobId: string; job: Job }
  /** A worker draws. */
  | ({ type: 'running'; jobId: string; attempt: number; machine: string | null } & AttemptStart)
  | { type: 'step'; jobId: string; step: number; steps: number; preview: Uint8Array | null; eta: Eta | null }
  /** The step after the completed ones, which takes long, has got on: so much of all steps is made. */
  | { type: 'progress'; jobId: string; step: number; steps: number; progress: number; eta: Eta | null }
  /** All steps are made; what is left is to decode and write the picture. */
  | { type: 'decoding'; jobId: string }
  | { type: 'requeued'; jobId: string; attempt: number; step: number; reason: string }
  | { type: 'done'; jobId: string; job: Job }
  | { type: 'failed'; jobId: string; job: Job }
  | { type: 'cancelled'; jobId: string; job: Job };

/** How far a job is in the hands of a worker. */
export type JobProgress = Extract<JobEvent, { type: 'step' | 'progress' | 'decoding' }>;
