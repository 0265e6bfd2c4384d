/**
 * Where jobs come in and go out: the store's operations in the order in which they were decided, and the events that
 * tell of them. The decisions themselves are the core's.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import {
  type Idempotency,
  isTerminal,
  type Job,
  type JobEvent,
  type JobOrder,
  type JobStatus,
  requestOf,
} from '@qwen-supervisor/protocol/job';
import type { JobOutcome } from '@qwen-supervisor/protocol/messages';
import type { Logger } from 'pino';
import { checkpointedSteps, removeCheckpoints, removeHalfWritten } from './checkpoint-folder.js';
import type { EventLog } from './event-log.js';
import type { AttemptStart, Death, JobStore } from './job-store.js';
import type { CurrentJob } from './supervisor.js';

/** From one try to the next while the disk is full or does not answer. */
const DISK_RETRY_MS = 1000;
const DAY_MS = 86_400_000;

export interface JobDeskHooks {
  /** The job in the worker's hands. */
  current(): CurrentJob | null;
  /** Seconds until the next job leaves the queue. */
  secondsUntilClaim(): number;
  onQueued(): void;
  onClaimed(job: Job | null): void;
  onCancelRequest(id: string): void;
  /** The store failed in mid-operation: nothing it would say from now on is sure to be true. */
  onStoreFailure(error: CodedError): void;
}

export interface Bounds {
  maxQueued: number;
  /** Null: no limit. */
  keepDays: number | null;
  keepBytes: number | null;
}

export class JobDesk {
  bounds: Bounds;
  readonly #dataDir: string;
  readonly #store: JobStore;
  readonly #log: Logger;
  readonly #events: EventLog;
  readonly #hooks: JobDeskHooks;
  #tail: Promise<unknown> = Promise.resolve();
  #problem: string | null = null;
  #closing = false;

  constructor(
    parts: { dataDir: string; store: JobStore; log: Logger; events: EventLog; bounds: Bounds },
    hooks: JobDeskHooks,
  ) {
    this.bounds = parts.bounds;
    this.#dataDir = parts.dataDir;
    this.#store = parts.store;
    this.#log = parts.log;
    this.#events = parts.events;
    this.#hooks = hooks;
  }

  /** Why decided operations wait for the disk; null if they do not. */
  get problem(): string | null {
    return this.#problem;
  }

  /** `refusal`: why no new job is accepted now. @throws CodedError QUEUE_FULL, IDEMPOTENCY_KEY_REUSED, the refusal */
  async submit(
    orders: JobOrder[],
    idempotency: Idempotency | null,
    refusal: CodedError | null = null,
  ): Promise<{ jobs: Job[]; replayed: boolean }> {
    // Who repeats a request that was accepted is answered even while new ones are refused.
    if (refusal && !(idempotency && (await this.#asked(this.#store.knows(idempotency.key))))) throw refusal;
    const put = this.#store.put(orders, idempotency, this.bounds.maxQueued).catch((error: unknown) => {
      if (!(error instanceof CodedError) || error.code !== 'QUEUE_FULL') throw error;
      throw new CodedError(error.code, error.message, { retryAfterSeconds: this.#hooks.secondsUntilClaim() });
    });
    const { jobs, replayed } = await this.#asked(put);
    if (replayed) return { jobs: jobs.map((job) => this.#withStep(job)), replayed };
    for (const job of jobs) this.#publish({ type: 'queued', jobId: job.id, job });
    this.#hooks.onQueued();
    return { jobs, replayed };
  }

  /** A new job with the request of one that failed or was cancelled. @throws CodedError JOB_NOT_FOUND, JOB_NOT_RETRYABLE */
  async retry(id: string, idempotency: Idempotency | null, refusal: CodedError | null): Promise<Job> {
    const job = await this.get(id);
    const { status, priority } = job;
    if (status !== 'failed' && status !== 'cancelled')
      throw new CodedError(
        'JOB_NOT_RETRYABLE',
        `the job is ${status}; only one that failed or was cancelled can be tried again`,
      );
    const { jobs } = await this.submit([{ request: requestOf(job), priority, retryOf: id }], idempotency, refusal);
    return jobs[0] as Job;
  }

  /** @throws CodedError JOB_NOT_FOUND */
  async get(id: string): Promise<Job> {
    return this.#withStep(found(await this.#asked(this.#store.get(id))));
  }

  async list(filter: { status: JobStatus | null; limit: number }): Promise<Job[]> {
    return (await this.#asked(this.#store.list(filter))).map((job) => this.#withStep(job));
  }

  /** @throws CodedError IMAGE_NOT_FOUND */
  async findImage(id: string): Promise<{ file: string; sha256: string }> {
    const image = await this.#asked(this.#store.findImage(id));
    if (!image) throw new CodedError('IMAGE_NOT_FOUND');
    return image;
  }

  /**
   * Cancels a queued job and asks the worker to end a running one.
   * @throws CodedError JOB_NOT_FOUND
   */
  async cancel(id: string): Promise<Job> {
    if (this.#problem !== null) {
      // The worker can obey, even though nothing can be written now.
      this.#hooks.onCancelRequest(id);
      throw new CodedError('DISK_FULL', this.#problem);
    }
    // In line with claims and releases: between them a job is always either queued or in the worker's hands.
    const job = await new Promise<Job | null>((resolve, reject) => {
      this.#inOrder(async () => {
        const before = await this.#store.get(id);
        const after = await this.#store.cancel(id);
        if (after && before?.status === 'queued') this.#publish({ type: 'cancelled', jobId: id, job: after });
        this.#hooks.onCancelRequest(id);
        resolve(after);
      }, reject);
    });
    return this.#withStep(found(job));
  }

  claim(): void {
    this.#inOrder(async () => this.#hooks.onClaimed(await this.#store.claim()));
  }

  begin(id: string, attempt: number, start: AttemptStart): void {
    this.#inOrder(async () => {
      const job = await this.#store.begin(id, attempt, start);
      if (job) this.#publish({ type: 'running', jobId: id, attempt, ...start });
    });
  }

  release(id: string, reason: string, death: Death, step: number): void {
    this.#inOrder(async () => {
      const job = await this.#store.release(id, death, step);
      if (job?.status === 'queued') this.#publish({ type: 'requeued', jobId: id, attempt: job.attempts, step, reason });
      else if (job?.status === 'failed' || job?.status === 'cancelled')
        this.#publish({ type: job.status, jobId: id, job });
    });
  }

  finish(id: string, attempt: number, step: number, outcome: JobOutcome): void {
    this.#inOrder(async () => {
      const job = await this.#store.finish(id, attempt, step, outcome);
      if (job) this.#publish({ type: outcome.status, jobId: id, job });
    });
    this.expire();
  }

  /** Of the running job; nothing else is told of steps. */
  step(id: string, step: number, steps: number, preview: Uint8Array | null): void {
    this.#events.publish({ type: 'step', jobId: id, step, steps, preview });
  }

  /** Puts right what an earlier supervisor left in mid-air. */
  recover(): void {
    this.#inOrder(async () => {
      const steps = checkpointedSteps(this.#dataDir);
      for (const job of await this.#store.recover((id) => steps.get(id) ?? 0)) {
        const { id, status, step } = job;
        this.#log.info({ job: id, step }, `job was running when the supervisor ended, now ${status}`);
      }
      const jobs = await Promise.all([...steps.keys()].map((id) => this.#store.get(id)));
      const open = new Set(jobs.filter((job) => job && !isTerminal(job.status)).map((job) => job?.id));
      this.#tidy(() => {
        removeHalfWritten(this.#dataDir);
        removeCheckpoints(this.#dataDir, (id) => open.has(id));
      });
    });
    this.expire();
  }

  /** Removes finished jobs and pictures beyond the operator's bounds. */
  expire(): void {
    const { keepDays, keepBytes } = this.bounds;
    if (keepDays === null && keepBytes === null) return;
    this.#inOrder(async () => {
      const finishedBefore = keepDays === null ? null : new Date(Date.now() - keepDays * DAY_MS).toISOString();
      const expired = await this.#store.expired({ finishedBefore, keepBytes });
      if (expired.length === 0) return;
      // Files first: what is still in the store is found and removed at the next look.
      this.#tidy(() => {
        for (const { file } of expired) if (file) rmSync(join(this.#dataDir, file), { force: true });
      });
      await this.#store.remove(expired.map(({ id }) => id));
      this.#log.info({ jobs: expired.length }, 'finished jobs removed: older or larger than is to be kept');
    });
  }

  counts(): Promise<{ queued: number; running: number }> {
    return this.#asked(this.#store.counts());
  }

  /** After the operations that are under way. */
  async close(): Promise<void> {
    this.#closing = true;
    for (let tail: unknown = null; tail !== this.#tail; ) {
      tail = this.#tail;
      await tail;
    }
    await this.#store.close();
  }

  #publish(event: JobEvent): void {
    this.#events.publish(event);
    if ('job' in event && isTerminal(event.job.status))
      this.#tidy(() => removeCheckpoints(this.#dataDir, (id) => id !== event.jobId));
    const reason = event.type === 'requeued' ? event.reason : event.type === 'running' ? event.startedOverReason : null;
    const step = event.type === 'running' && event.step > 0 ? event.step : null;
    const error = 'job' in event ? event.job.error : null;
    this.#log.info(
      { job: event.jobId, step, reason, error: error && `${error.code}: ${error.message}` },
      `job ${event.type}`,
    );
  }

  /** Removes files that nobody needs any more; where that fails they are in nobody's way. */
  #tidy(remove: () => void): void {
    try {
      remove();
    } catch (error) {
      this.#log.warn(`files that are no longer needed were not removed: ${(error as Error).message}`);
    }
  }

  /** What an engine throws at a client's question, in our words. */
  #asked<T>(operation: Promise<T>): Promise<T> {
    return operation.catch((cause: unknown) => {
      if (cause instanceof CodedError) throw cause;
      const code = this.#store.isTransient(cause) ? 'DISK_FULL' : 'JOB_STORE_UNUSABLE';
      throw new CodedError(code, `the job database: ${(cause as Error).message}`, { cause });
    });
  }

  /** `onFailure` hears of a failure before the supervisor ends for it. */
  #inOrder(operation: () => Promise<unknown>, onFailure: (error: CodedError) => void = () => {}): void {
    this.#tail = this.#tail
      .then(() => this.#persist(operation))
      .catch((cause: unknown) => {
        const error = new CodedError('JOB_STORE_UNUSABLE', (cause as Error).message, { cause });
        onFailure(error);
        this.#hooks.onStoreFailure(error);
      });
  }

  /** What was decided is written, if not now then when the disk takes it again; only a stop gives up. */
  async #persist(operation: () => Promise<unknown>): Promise<void> {
    for (;;) {
      try {
        await operation();
        if (this.#problem !== null) this.#log.info('the job database can be written again');
        this.#problem = null;
        return;
      } catch (error) {
        if (!this.#store.isTransient(error) || this.#closing) throw error;
        if (this.#problem === null)
          this.#log.error(`the job database cannot be written, trying on: ${(error as Error).message}`);
        this.#problem = `the job database cannot be written: ${(error as Error).message}`;
        await new Promise((resolve) => setTimeout(resolve, DISK_RETRY_MS));
      }
    }
  }

  /** Steps of the running job are not written to the store. */
  #withStep(job: Job): Job {
    const current = this.#hooks.current();
    return job.status === 'running' && current?.job.id === job.id ? { ...job, step: current.step } : job;
  }
}

function found(job: Job | null): Job {
  if (!job) throw new CodedError('JOB_NOT_FOUND');
  return job;
}
