/**
 * Where jobs come in and go out: the store's operations in the order in which they were decided, and the events that
 * tell of them. The decisions themselves are the core's.
 */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import {
  type AttemptStart,
  type CancelScope,
  type Idempotency,
  isTerminal,
  type Job,
  type JobEvent,
  type JobFilter,
  type JobOrder,
} from '@qwen-supervisor/protocol/job';
import { type JobRequest, requestOf } from '@qwen-supervisor/protocol/job-request';
import type { JobOutcome } from '@qwen-supervisor/protocol/messages';
import type { WorkerName } from '@qwen-supervisor/protocol/status';
import type { Logger } from 'pino';
import type { Death } from '../core/attempt.js';
import type { Event } from '../core/events.js';
import { secondsUntilClaim } from '../core/expected-times.js';
import type { State } from '../core/state.js';
import type { EventLog } from '../records/event-log.js';
import { Gallery, type Keep } from './gallery.js';
import { checkpointedSteps, removeCheckpoints, removeHalfWritten } from './job-checkpoints.js';
import { type JobStore, listAll, type Taker } from './job-store.js';
import { liveJob, type Others } from './live-job.js';
import { OrderedWrites } from './ordered-writes.js';
import { QueueLine } from './queue-line.js';
import type { SharedFiles } from './shared-files.js';
import { removePicture, tidily } from './stored-pictures.js';
import { tidyUp } from './tidy.js';

/** What is known of a queue of days may be otherwise in an hour. */
const RETRY_MAX_SECONDS = 3600;
/** So long a job is kept whose files cannot be had here: given back at once it would be claimed again at once. */
const NOT_READY_MS = 5000;

/** What the desk reads of the core, and what it tells it. */
export interface Core {
  state(): State;
  /** Monotonic. */
  nowMs(): number;
  send(event: Event): void;
  /** By the limits that hold now. @throws CodedError REQUEST_INVALID, SIZE_TOO_LARGE */
  requireAllowed(request: JobRequest): void;
  /** What this worker can take now. */
  takerFor(worker: WorkerName): Taker;
}

export interface Bounds extends Keep {
  maxQueued: number;
  maxQueuedPerKey: number;
}

interface DeskParts {
  dataDir: string;
  store: JobStore;
  shared: SharedFiles | null;
  others: Others;
  log: Logger;
  events: EventLog;
  bounds: Bounds;
}

export class JobDesk {
  bounds: Bounds;
  /** The pictures of those that are done. */
  readonly gallery: Gallery;
  readonly #dataDir: string;
  readonly #store: JobStore;
  readonly #log: Logger;
  readonly #events: EventLog;
  readonly #core: Core;
  readonly #writes: OrderedWrites;
  /** What waits for the shared folder: nothing else does. */
  readonly #copies: OrderedWrites;
  readonly #line: QueueLine;
  /** Null where all that is drawn is drawn here. */
  readonly #shared: SharedFiles | null;
  readonly #others: Others;

  constructor(parts: DeskParts, core: Core) {
    this.bounds = parts.bounds;
    this.#dataDir = parts.dataDir;
    this.#store = parts.store;
    this.#shared = parts.shared;
    this.#others = parts.others;
    this.#log = parts.log;
    this.#events = parts.events;
    this.#core = core;
    const hooks = {
      whenAway: (error: unknown) => parts.store.whenAway(error),
      onWritten: () => this.#line.changed(),
      onFailure: (error: CodedError) => {
        parts.log.error({ code: error.code }, error.message);
        core.send({ type: 'store-failed', atMs: core.nowMs(), error: error.toObject() });
      },
    };
    this.#writes = new OrderedWrites('the job database', parts.log, hooks);
    this.#copies = new OrderedWrites('the shared folder', parts.log, hooks);
    this.gallery = new Gallery({ ...parts, writes: this.#writes }, () => this.bounds);
    this.#line = new QueueLine(parts.store, this.#writes, () => this.#writes.problem ?? this.#copies.problem);
  }

  /** How many jobs there are, and why nothing gets on. */
  standing(): ReturnType<QueueLine['standing']> {
    return this.#line.standing();
  }

  /**
   * `refusal`: why no new job is accepted now. @throws CodedError QUEUE_FULL, IDEMPOTENCY_KEY_REUSED, REQUEST_INVALID,
   * SIZE_TOO_LARGE, the refusal
   */
  async submit(
    orders: JobOrder[],
    idempotency: Idempotency | null,
    refusal: CodedError | null = null,
  ): Promise<{ jobs: Job[]; replayed: boolean }> {
    // Who repeats a request that was accepted is answered even while new ones are refused.
    if (!(idempotency && (await this.#writes.inOurErrors(this.#store.knows(idempotency.key))))) {
      if (refusal) throw refusal;
      for (const { request } of orders) this.#core.requireAllowed(request);
    }
    for (const { request } of orders) await this.#shared?.putInputs(request);
    const core = this.#core;
    const { maxQueued, maxQueuedPerKey } = this.bounds;
    const put = this.#store.put(orders, idempotency, maxQueued, maxQueuedPerKey).catch((error: unknown) => {
      if (!(error instanceof CodedError) || error.code !== 'QUEUE_FULL') throw error;
      throw new CodedError(error.code, error.message, {
        retryAfterSeconds: Math.min(RETRY_MAX_SECONDS, secondsUntilClaim(core.state(), core.nowMs())),
      });
    });
    const { jobs: stored, replayed } = await this.#writes.inOurErrors(put);
    this.#line.changed();
    const jobs = await this.#withLiveFields(stored);
    if (replayed) return { jobs, replayed };
    await this.#publishAll(jobs.map((job) => ({ type: 'queued', jobId: job.id, job })));
    this.#core.send({ type: 'job-queued', atMs: this.#core.nowMs() });
    return { jobs, replayed };
  }

  /**
   * A new job with the request of one that failed or was cancelled. @throws CodedError JOB_NOT_FOUND,
   * JOB_NOT_RETRYABLE, and as `submit`
   */
  async retry(
    id: string,
    idempotency: Idempotency | null,
    owner: string | null,
    refusal: CodedError | null,
  ): Promise<Job> {
    const job = await this.get(id);
    const { status, priority, source } = job;
    if (status !== 'failed' && status !== 'cancelled')
      throw new CodedError(
        'JOB_NOT_RETRYABLE',
        `the job is ${status}; only one that failed or was cancelled can be tried again`,
      );
    const order = { request: requestOf(job), priority, source, retryOf: id, owner };
    const { jobs } = await this.submit([order], idempotency, refusal);
    return jobs[0] as Job;
  }

  /** @throws CodedError JOB_NOT_FOUND */
  async get(id: string): Promise<Job> {
    return this.#live(await this.#writes.inOurErrors(this.#store.get(id)));
  }

  async list(filter: JobFilter, cursor: number | null, limit: number): Promise<{ jobs: Job[]; next: number | null }> {
    const { jobs, next } = await this.#writes.inOurErrors(this.#store.list(filter, cursor, limit));
    return { jobs: await this.#withLiveFields(jobs), next };
  }

  /** Those that have ended, the last first. */
  async ended(limit: number): Promise<Job[]> {
    const any = { source: null, group: null, ids: null };
    const lists = (['done', 'failed', 'cancelled'] as const).map((status) =>
      this.#store.list({ status, ...any }, null, limit),
    );
    const jobs = (await this.#writes.inOurErrors(Promise.all(lists))).flatMap((list) => list.jobs);
    return jobs.sort((a, b) => (b.finishedAt ?? '').localeCompare(a.finishedAt ?? '')).slice(0, limit);
  }

  /** The first jobs in line, in their order. */
  async waiting(limit: number): Promise<Job[]> {
    return this.#withLiveFields(await this.#line.first(limit));
  }

  /**
   * Cancels a queued job and asks the worker to end a running one: with the picture that it has reached if `keep`,
   * not at all if `ifQueued`.
   * @throws CodedError JOB_NOT_FOUND, DISK_FULL, STORE_UNREACHABLE
   */
  async cancel(id: string, { keep = false, ifQueued = false } = {}): Promise<Job> {
    // In line with claims and releases: between them a job is always either queued or in the worker's hands.
    const operation = async () => {
      const before = await this.#store.get(id);
      if (ifQueued && before?.status !== 'queued') return before;
      const after = await this.#store.cancel(id, keep);
      if (after?.status === 'cancelled' && before?.status === 'queued')
        this.#publish({ type: 'cancelled', jobId: id, job: after });
      this.#cancelRunning(id, keep);
      return after;
    };
    const job = await this.#writes.ask(operation).catch((error: CodedError) => {
      // The worker can obey, even though nothing can be written now.
      if (error.code !== 'JOB_STORE_UNUSABLE' && !ifQueued) this.#cancelRunning(id, keep);
      throw error;
    });
    return this.#live(job);
  }

  #cancelRunning(jobId: string, keep: boolean): void {
    this.#core.send({ type: 'cancel-running', atMs: this.#core.nowMs(), jobId, keep });
  }

  /** Cancels all jobs of a scope; tells how many. @throws CodedError DISK_FULL */
  async cancelAll(scope: CancelScope): Promise<number> {
    if (scope.scope === 'running') return this.#cancelRuns(null);
    if (scope.scope === 'queued') return this.#cancelQueued(null);
    const running = scope.queued ? 0 : await this.#cancelRuns(scope.group);
    return running + (await this.#cancelQueued(scope.group));
  }

  /** On whatever machine they run. One that has ended meanwhile is not counted. */
  async #cancelRuns(group: string | null): Promise<number> {
    const filter = { status: 'running' as const, source: null, group, ids: null };
    const running = await this.#writes.inOurErrors(listAll(this.#store, filter));
    const jobs = await Promise.all(running.map(({ id }) => this.cancel(id)));
    return jobs.filter(({ status }) => status === 'running' || status === 'cancelled').length;
  }

  async #cancelQueued(group: string | null): Promise<number> {
    const queued = await this.#writes.ask(() => this.#store.cancelQueued(group));
    await this.#publishAll(queued.map((job) => ({ type: 'cancelled', jobId: job.id, job })));
    return queued.length;
  }

  /** @throws CodedError JOB_NOT_FOUND, JOB_NOT_QUEUED, DISK_FULL */
  async move(id: string, priority: number | null, before: string | null): Promise<Job> {
    for (const known of before === null ? [id] : [id, before]) {
      const { status } = await this.get(known);
      if (status !== 'queued') throw new CodedError('JOB_NOT_QUEUED', `job ${known} is ${status}`);
    }
    if (id === before) throw new CodedError('REQUEST_INVALID', 'before: a job cannot be moved before itself');
    const place = before === null ? { priority: priority ?? 0 } : { before };
    const moved = await this.#writes.ask(() => this.#store.move(id, place));
    if (!moved) throw new CodedError('JOB_NOT_QUEUED');
    const job = await this.#live(moved);
    this.#publish({ type: 'moved', jobId: id, job });
    return job;
  }

  /** Forgets a job that has ended, with its picture. @throws CodedError JOB_NOT_FOUND, JOB_NOT_ENDED */
  async remove(id: string): Promise<void> {
    const job = await this.get(id);
    if (!isTerminal(job.status)) throw new CodedError('JOB_NOT_ENDED', `the job is ${job.status}`);
    await this.gallery.remove(job);
  }

  claim(worker: WorkerName): void {
    const shared = this.#shared;
    // Who cannot read what a job needs leaves it to others.
    if (shared === null) this.#claim(worker);
    else this.#copies.later(() => shared.requireThere().then(() => this.#claim(worker)));
  }

  #claim(worker: WorkerName): void {
    this.#writes.later(async () => {
      const job = await this.#store.claim(this.#core.takerFor(worker));
      this.#core.send({ type: 'claimed', worker, atMs: this.#core.nowMs(), job: job && (await this.#madeReady(job)) });
    });
  }

  async #madeReady(job: Job): Promise<Job | null> {
    try {
      await this.#shared?.getReady(job);
      return job;
    } catch (error) {
      const { code, message } = error as CodedError;
      this.#log.warn({ job: job.id, code }, message);
      // An operation of its own: with the claim it would be tried again, and another job claimed.
      setTimeout(() => this.release(job.id, job.attempts, message, 'none', job.step), NOT_READY_MS).unref();
      return null;
    }
  }

  begin(id: string, attempt: number, start: AttemptStart, deviceReason: string): void {
    this.#writes.later(async () => {
      const job = await this.#store.begin(id, attempt, start, deviceReason);
      if (job) this.#publish({ type: 'running', jobId: id, attempt, machine: job.machine, ...start });
    });
  }

  release(id: string, attempt: number, reason: string, death: Death, step: number): void {
    this.#writes.later(async () => {
      const job = await this.#store.release(id, attempt, death, step);
      if (job?.status === 'queued') this.#publish({ type: 'requeued', jobId: id, attempt: job.attempts, step, reason });
      else if (job?.status === 'failed' || job?.status === 'cancelled')
        this.#publish({ type: job.status, jobId: id, job });
    });
  }

  finish(id: string, attempt: number, step: number, outcome: JobOutcome): void {
    const shared = this.#shared;
    if (shared === null || outcome.status !== 'done') return this.#finish(id, attempt, step, outcome);
    this.#copies.later(async () => {
      if (await shared.putPicture(outcome)) this.#finish(id, attempt, step, outcome);
      else this.release(id, attempt, 'its picture was removed before it was copied', 'none', step);
    });
  }

  #finish(id: string, attempt: number, step: number, outcome: JobOutcome): void {
    this.#writes.later(async () => {
      const job = await this.#store.finish(id, attempt, step, outcome);
      // Another machine's counts, and has the same name.
      if (!job && this.#shared && outcome.status === 'done')
        tidily(this.#log, () => removePicture(this.#dataDir, outcome.file));
      if (job) this.#publish({ type: outcome.status, jobId: id, job });
    });
    this.gallery.expire();
  }

  /** Puts right what an earlier supervisor left in mid-air. */
  recover(): void {
    this.#writes.later(async () => {
      const steps = checkpointedSteps(this.#dataDir);
      for (const { id, status, step } of await this.#store.recover((id) => steps.get(id) ?? 0))
        this.#log.info({ job: id, step }, `job was running when the supervisor ended, now ${status}`);
      tidily(this.#log, () => removeHalfWritten(this.#dataDir));
    });
    this.tidy();
  }

  tidy(): void {
    const place = { dataDir: this.#dataDir, store: this.#store, shared: this.#shared, log: this.#log };
    this.#writes.later(() => tidyUp(place));
    this.gallery.expire();
  }

  /** Of jobs that have ended, here or elsewhere. */
  dropCheckpoints(ids: string[]): void {
    tidily(this.#log, () => removeCheckpoints(this.#dataDir, (id) => !ids.includes(id)));
  }

  /** Jobs came, or went, by way of another machine. */
  readonly othersChanged = () => this.#line.changed();

  counts(): Promise<{ queued: number; running: number }> {
    return this.#writes.inOurErrors(this.#store.counts());
  }

  async close(): Promise<void> {
    await this.#copies.close();
    await this.#writes.close();
    await this.#store.close();
  }

  /** All at once would be more than those who listen can take. */
  async #publishAll(events: JobEvent[]): Promise<void> {
    for (const event of events) this.#record(event);
    await this.#events.publishAll(events);
  }

  #publish(event: JobEvent): void {
    this.#events.publish(event);
    this.#record(event);
  }

  #record(event: JobEvent): void {
    if ('job' in event && isTerminal(event.job.status)) {
      this.dropCheckpoints([event.jobId]);
      this.#shared?.ended(event.jobId);
    }
    if (event.type !== 'moved') this.#others.forget(event.jobId);
    const reason = event.type === 'requeued' ? event.reason : event.type === 'running' ? event.startedOverReason : null;
    const step = event.type === 'running' && event.step > 0 ? event.step : null;
    const device = event.type === 'running' ? event.device : null;
    const error = 'job' in event ? event.job.error : null;
    this.#log.info(
      { job: event.jobId, device, step, reason, error: error && `${error.code}: ${error.message}` },
      `job ${event.type}`,
    );
  }

  async #live(job: Job | null): Promise<Job> {
    if (!job) throw new CodedError('JOB_NOT_FOUND');
    return (await this.#withLiveFields([job]))[0] as Job;
  }

  /** With what the store does not know: the step of a running job, and place and time of those that wait. */
  async #withLiveFields(jobs: Job[]): Promise<Job[]> {
    const line = jobs.some((job) => job.status === 'queued') ? await this.#line.places() : null;
    const [state, atMs] = [this.#core.state(), this.#core.nowMs()];
    return jobs.map((job) => liveJob(job, { state, atMs, place: line?.get(job.id), others: this.#others }));
  }
}
