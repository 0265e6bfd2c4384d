/**
 * The seam of the job store. It speaks in operations of a queue, not in SQL, and is asynchronous, so that an engine in
 * another process fits behind it. Every operation is durable when its promise resolves.
 */
import type { Job, JobRequest, JobStatus } from '@qwen-supervisor/protocol/job';
import type { JobOutcome } from '@qwen-supervisor/protocol/messages';

/**
 * How a worker died with a job in its hands: of its own making, killed from outside before or after a completed step, or
 * not at all (a planned stop).
 */
export type Death = 'own' | 'outside' | 'outside-after-progress' | 'none';

/** So many deaths of the worker's own making with the same job in flight are laid to the job. */
export const OWN_DEATHS_MAX = 2;
/** So many kills from outside in a row, without one completed step, too: whatever kills, the job does not get on. */
export const OUTSIDE_DEATHS_MAX = 5;

export interface JobStore {
  /** Accepts a job: queued, behind all others. */
  put(request: JobRequest): Promise<Job>;
  /** Takes the oldest queued job and records the attempt that is about to begin; null if none is queued. */
  claim(): Promise<Job | null>;
  /**
   * Puts a running job back to its place in the queue; null if it is not running. One whose cancel was asked for is
   * cancelled instead, and one that has seen too many deaths is failed with JOB_POISONED.
   */
  release(id: string, death: Death): Promise<Job | null>;
  /** Ends a running job, once: null if it is not running in this attempt. */
  finish(id: string, attempt: number, step: number, outcome: JobOutcome): Promise<Job | null>;
  /**
   * Cancels a queued job. For a running one the wish is kept, so that it does not come back if its worker or the
   * supervisor dies first. Any other is returned as it is; null if there is none.
   */
  cancel(id: string): Promise<Job | null>;
  get(id: string): Promise<Job | null>;
  /** Newest first. */
  list(filter: { status: JobStatus | null; limit: number }): Promise<Job[]>;
  /** Where a picture's file lies, relative to the data folder. */
  findImage(id: string): Promise<{ file: string; sha256: string } | null>;
  counts(): Promise<{ queued: number; running: number }>;
  /** Puts every running job back into the queue, or cancels it if that was asked for: nothing runs when a supervisor starts. */
  recover(): Promise<Job[]>;
  close(): Promise<void>;
}
