/**
 * The seam of the job store. It speaks in operations of a queue, not in SQL, and is asynchronous, so that an engine in
 * another process fits behind it. Every operation is durable when its promise resolves.
 */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type {
  AttemptStart,
  Idempotency,
  Job,
  JobFilter,
  JobOrder,
  JobProgress,
  PictureFilter,
  PictureMarks,
} from '@qwen-supervisor/protocol/job';
import type { JobOutcome, PictureFacets, PicturePage } from '@qwen-supervisor/protocol/messages';
import type { Death } from '../core/attempt.js';

/** This many deaths of the worker's own making with the same job in flight are laid to the job. */
export const OWN_DEATHS_MAX = 2;
/** This many kills from outside in a row, without one completed step, too: whatever kills, the job does not get on. */
export const OUTSIDE_DEATHS_MAX = 5;

/** Jobs of a page that nobody sees. */
const LISTED_AT_ONCE = 1000;

/** What a job is after an attempt that ended with this death. */
export function afterDeath(
  job: { own_deaths: number; outside_deaths: number; cancel_requested: number },
  death: Death,
): { ownDeaths: number; outsideDeaths: number; status: 'queued' | 'failed' | 'cancelled' } {
  const ownDeaths = job.own_deaths + (death === 'own' ? 1 : 0);
  const outsideDeaths = death === 'outside' ? job.outside_deaths + 1 : death === 'none' ? job.outside_deaths : 0;
  const isPoisoned = ownDeaths >= OWN_DEATHS_MAX || outsideDeaths >= OUTSIDE_DEATHS_MAX;
  const status = job.cancel_requested === 1 ? 'cancelled' : isPoisoned ? 'failed' : 'queued';
  return { ownDeaths, outsideDeaths, status };
}

/**
 * Whether so many more may wait; `own`: those of their owner that do, null where they have none.
 * @throws CodedError QUEUE_FULL
 */
export function requireRoom(
  more: number,
  { queued, own }: { queued: number; own: number | null },
  { maxQueued, maxPerOwner }: { maxQueued: number; maxPerOwner: number },
): void {
  if (queued + more > maxQueued)
    throw new CodedError('QUEUE_FULL', `${queued} jobs are waiting, and the queue holds ${maxQueued}`);
  if (own !== null && own + more > maxPerOwner)
    throw new CodedError('QUEUE_FULL', `${own} jobs of this key are waiting, and one key may have ${maxPerOwner}`);
}

/** A queued job in line. */
export interface Waiting {
  id: string;
  /** What is to be computed for it: see `workOf`. */
  work: number;
}

/** What a worker takes: of the queued jobs the first that is for it. */
export interface Taker {
  /** No picture of more pixels; null: any. */
  maxPixels: number | null;
  /** None that was begun on one of these devices: others go on with it. */
  leaves: string[];
}

/** What is kept of what is finished; null: without limit. */
export interface KeepLimits {
  finishedBefore: string | null;
  trashedBefore: string | null;
  keepBytes: number | null;
}

/** A finished job that retention wants to remove. */
export interface Expired {
  id: string;
  /** Of its picture, relative to the data folder. */
  file: string | null;
}

/** What machines that share a store have beside its jobs. */
export interface Machines {
  /** Tells the others how far a job is that is drawn here: what is lost is made good by what is told next. */
  tell(progress: JobProgress, hasPreview: boolean): Promise<void>;
  /** From now on this one takes no more jobs, or takes them again. Whether there is one of this name. */
  drain(name: string, isDrained: boolean): Promise<boolean>;
}

export interface JobStore {
  /**
   * Accepts orders, all or none: queued, behind all others of their priority; several are a group. Orders that repeat a
   * known key give the jobs of its first use.
   * @throws CodedError QUEUE_FULL where more than `maxQueued` would wait, or more than
   * `maxPerOwner` of one owner, IDEMPOTENCY_KEY_REUSED
   */
  put(
    orders: JobOrder[],
    idempotency: Idempotency | null,
    maxQueued: number,
    maxPerOwner: number,
  ): Promise<{ jobs: Job[]; replayed: boolean }>;
  /** Whether jobs were accepted with this key and are still kept. */
  knows(key: string): Promise<boolean>;
  /** Takes the first queued job that is for it, and records the attempt that is about to begin; null for none. */
  claim(taker: Taker): Promise<Job | null>;
  /** Records where the running attempt has begun, and why on that device; null if it is not running. */
  begin(id: string, attempt: number, start: AttemptStart, deviceReason?: string | null): Promise<Job | null>;
  /**
   * Puts a running job back to its place in the queue, with the steps that are completed; null if it is not
   * running in this attempt.
   * One whose cancel was asked for is cancelled instead, and one that has seen too many deaths is failed with
   * JOB_POISONED.
   */
  release(id: string, attempt: number, death: Death, step: number): Promise<Job | null>;
  /** Ends a running job, once: null if it is not running in this attempt. */
  finish(id: string, attempt: number, step: number, outcome: JobOutcome): Promise<Job | null>;
  /**
   * Cancels a queued job. For a running one the wish is kept, so that it does not come back if its worker or the
   * supervisor dies first, and whoever holds it is told: to `keep` the picture that it has reached, where it is another
   * supervisor. Any other is returned as it is; null if there is none.
   */
  cancel(id: string, keep?: boolean): Promise<Job | null>;
  /** Cancels all queued jobs, or those of a group; gives them. */
  cancelQueued(group: string | null): Promise<Job[]>;
  /**
   * Gives a queued job another priority, behind all others that have it, or the place before another queued one, with
   * the priority of that. Null if it, or the other, is not queued.
   */
  move(id: string, place: { priority: number } | { before: string }): Promise<Job | null>;
  get(id: string): Promise<Job | null>;
  /** Newest first, after `cursor`; `next` is the cursor of the page after this one, null at the end. */
  list(filter: JobFilter, cursor: number | null, limit: number): Promise<{ jobs: Job[]; next: number | null }>;
  /** The queued jobs in the order in which they will be claimed. */
  waiting(limit: number): Promise<Waiting[]>;
  /** Of all jobs that are done, newest first, paged as `list` is. */
  pictures(filter: PictureFilter, cursor: number | null, limit: number): Promise<PicturePage>;
  facets(): Promise<PictureFacets>;
  /** Stars pictures, puts them into the trash, or takes them out; gives the ids of those that were otherwise before. */
  mark(ids: string[], marks: PictureMarks): Promise<string[]>;
  /** SHA-256 of every picture that a job draws over. */
  inputs(): Promise<Set<string>>;
  /** Where a picture's file lies, relative to the data folder. */
  findImage(id: string): Promise<{ file: string; sha256: string } | null>;
  counts(): Promise<{ queued: number; running: number }>;
  /** Milliseconds since 1970 by the clock that its times are of. */
  nowMs(): Promise<number>;
  /**
   * Releases every running job: nothing runs when a supervisor starts. Each died together with its supervisor, after
   * the step that `completedSteps` knows of.
   */
  recover(completedSteps: (id: string) => number): Promise<Job[]>;
  /**
   * Finished jobs that ended before `finishedBefore` (ISO 8601), whose pictures came into the trash before
   * `trashedBefore`, or, newest first, go beyond `keepBytes`. Starred ones only out of the trash; and the newest ten
   * others are never too large: somebody may be about to fetch them.
   */
  expired(limits: KeepLimits): Promise<Expired[]>;
  /** Forgets finished jobs. */
  remove(ids: string[]): Promise<void>;
  /** Those that share it; null where it is this machine's own. */
  machines: Machines | null;
  /** What to call it where the operation that failed so may succeed later; null where it will not. */
  whenAway(error: unknown): 'DISK_FULL' | 'STORE_UNREACHABLE' | 'STORE_SCHEMA_OLD' | null;
  close(): Promise<void>;
}

/** However many pages it takes. */
export async function listAll(store: JobStore, filter: JobFilter): Promise<Job[]> {
  const all: Job[] = [];
  for (let cursor: number | null = null, more = true; more; more = cursor !== null) {
    const page: { jobs: Job[]; next: number | null } = await store.list(filter, cursor, LISTED_AT_ONCE);
    all.push(...page.jobs);
    cursor = page.next;
  }
  return all;
}
