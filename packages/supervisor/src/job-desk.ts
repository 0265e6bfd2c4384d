/**
 * Where jobs come in and go out: the store's operations in the order in which they were decided, and the events that
 * tell of them. The decisions themselves are the core's.
 */
import type { Link } from '@qwen-supervisor/ipc/link';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Job, JobEvent, JobRequest, JobStatus } from '@qwen-supervisor/protocol/job';
import type { ClientMethods, JobOutcome, SupervisorMethods } from '@qwen-supervisor/protocol/messages';
import type { Logger } from 'pino';
import type { Death, JobStore } from './job-store.js';
import type { State } from './supervisor.js';

type Subscriber = Pick<Link<ClientMethods, SupervisorMethods>, 'notify'>;

export interface JobDeskHooks {
  /** The job in the worker's hands. */
  current(): State['current'];
  onQueued(): void;
  onClaimed(job: Job | null): void;
  onCancelRequest(id: string): void;
  /** The store failed in mid-operation: nothing it would say from now on is sure to be true. */
  onStoreFailure(error: CodedError): void;
}

export class JobDesk {
  readonly #store: JobStore;
  readonly #log: Logger;
  readonly #hooks: JobDeskHooks;
  readonly #subscribers = new Set<Subscriber>();
  #tail: Promise<unknown> = Promise.resolve();

  constructor(store: JobStore, log: Logger, hooks: JobDeskHooks) {
    this.#store = store;
    this.#log = log;
    this.#hooks = hooks;
  }

  async submit(request: JobRequest): Promise<Job> {
    const job = await storeError(this.#store.put(request));
    this.publish({ type: 'queued', jobId: job.id, job });
    this.#hooks.onQueued();
    return job;
  }

  /** @throws CodedError JOB_NOT_FOUND */
  async get(id: string): Promise<Job> {
    return this.#withStep(found(await storeError(this.#store.get(id))));
  }

  async list(filter: { status: JobStatus | null; limit: number }): Promise<Job[]> {
    return (await storeError(this.#store.list(filter))).map((job) => this.#withStep(job));
  }

  /** @throws CodedError IMAGE_NOT_FOUND */
  async findImage(id: string): Promise<{ file: string; sha256: string }> {
    const image = await storeError(this.#store.findImage(id));
    if (!image) throw new CodedError('IMAGE_NOT_FOUND');
    return image;
  }

  /**
   * Cancels a queued job and asks the worker to end a running one.
   * @throws CodedError JOB_NOT_FOUND
   */
  async cancel(id: string): Promise<Job> {
    // In line with claims and releases: between them a job is always either queued or in the worker's hands.
    const turn = this.#tail.then(async () => {
      const before = await this.#store.get(id);
      const job = await this.#store.cancel(id);
      if (job && before?.status === 'queued') this.publish({ type: 'cancelled', jobId: id, job });
      this.#hooks.onCancelRequest(id);
      return job;
    });
    this.#inOrder(() => turn);
    return this.#withStep(found(await turn));
  }

  claim(): void {
    this.#inOrder(async () => this.#hooks.onClaimed(await this.#store.claim()));
  }

  release(id: string, reason: string, death: Death): void {
    this.#inOrder(async () => {
      const job = await this.#store.release(id, death);
      if (job?.status === 'queued') this.publish({ type: 'requeued', jobId: id, attempt: job.attempts, reason });
      else if (job?.status === 'failed' || job?.status === 'cancelled')
        this.publish({ type: job.status, jobId: id, job });
    });
  }

  finish(id: string, attempt: number, step: number, outcome: JobOutcome): void {
    this.#inOrder(async () => {
      const job = await this.#store.finish(id, attempt, step, outcome);
      if (job) this.publish({ type: outcome.status, jobId: id, job });
    });
  }

  async recover(): Promise<void> {
    for (const job of await this.#store.recover()) {
      this.#log.info({ job: job.id }, `job was running when the supervisor ended, now ${job.status}`);
    }
  }

  counts(): Promise<{ queued: number; running: number }> {
    return storeError(this.#store.counts());
  }

  subscribe(link: Subscriber): void {
    this.#subscribers.add(link);
  }

  unsubscribe(link: Subscriber): void {
    this.#subscribers.delete(link);
  }

  publish(event: JobEvent): void {
    for (const link of this.#subscribers) link.notify('event', event);
    if (event.type === 'step') return;
    const reason = event.type === 'requeued' ? event.reason : null;
    const error = 'job' in event ? event.job.error : null;
    this.#log.info(
      { job: event.jobId, reason, error: error && `${error.code}: ${error.message}` },
      `job ${event.type}`,
    );
  }

  /** Tells those who wait that no job will be done until the worker is repaired. */
  announceFailure(reason: string): void {
    for (const link of this.#subscribers) link.notify('workerFailed', { reason });
  }

  /** After the operations that are under way. */
  async close(): Promise<void> {
    await this.#tail;
    await this.#store.close();
  }

  #inOrder(operation: () => Promise<unknown>): void {
    this.#tail = this.#tail.then(operation).catch((cause: unknown) => {
      this.#hooks.onStoreFailure(new CodedError('JOB_STORE_UNUSABLE', (cause as Error).message, { cause }));
    });
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

/** What an engine throws, in our words. */
function storeError<T>(operation: Promise<T>): Promise<T> {
  return operation.catch((cause: unknown) => {
    throw new CodedError('JOB_STORE_UNUSABLE', (cause as Error).message, { cause });
  });
}
