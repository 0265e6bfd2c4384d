/** The stream of events: numbered, the last ones kept for those who come late, sent to all who subscribed. */
import { randomBytes } from 'node:crypto';
import type { Link } from '@qwen-supervisor/ipc/link';
import { EventRing } from '@qwen-supervisor/protocol/event-ring';
import type { NumberedEvent, SystemEvent } from '@qwen-supervisor/protocol/events';
import type { ClientMethods, SupervisorMethods } from '@qwen-supervisor/protocol/messages';

/** `drained`: resolves when it has read what it was sent; who is no link needs none. */
type Subscriber = Pick<Link<ClientMethods, SupervisorMethods>, 'notify'> & { drained?(): Promise<void> };

/** One that does not read is not waited for; its link cuts it off. */
const DRAIN_LIMIT_MS = 1000;

export class EventLog {
  /** Tells the events of this supervisor from those of another. */
  readonly run = randomBytes(6).toString('hex');
  readonly #subscribers = new Set<Subscriber>();
  readonly #ring = new EventRing();
  /** Those that were waited for, and have not read what they were sent. */
  readonly #stalled = new WeakSet<Subscriber>();
  #seq = 0;
  #preview: { jobId: string; png: Uint8Array } | null = null;

  /** Number of the last event. */
  get lastSeq(): number {
    return this.#seq;
  }

  publish(event: SystemEvent): void {
    const numbered: NumberedEvent = { ...event, run: this.run, seq: ++this.#seq, at: new Date().toISOString() };
    if (event.type === 'step' && event.preview) this.#preview = { jobId: event.jobId, png: event.preview };
    for (const subscriber of this.#subscribers) subscriber.notify('event', numbered);
    this.#ring.push(numbered);
  }

  /** The last preview of this job, if it is the last of all. */
  preview(jobId: string): Uint8Array | null {
    return this.#preview?.jobId === jobId ? this.#preview.png : null;
  }

  /** First what is kept of the events after `since`, then all that come. */
  subscribe(subscriber: Subscriber, since: number | null): void {
    if (since !== null) {
      for (const event of this.#ring.after(since) ?? this.#ring.all()) subscriber.notify('event', event);
    }
    this.#subscribers.add(subscriber);
  }

  /** Resolves when all have read what they were sent; who has not within the limit is not waited for until it has. */
  async drained(): Promise<void> {
    const reading = [...this.#subscribers]
      .filter((subscriber) => subscriber.drained && !this.#stalled.has(subscriber))
      .map(async (subscriber) => {
        this.#stalled.add(subscriber);
        await subscriber.drained?.();
        this.#stalled.delete(subscriber);
      });
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise((resolve) => {
      timer = setTimeout(resolve, DRAIN_LIMIT_MS);
    });
    await Promise.race([Promise.all(reading), limit]);
    clearTimeout(timer);
  }

  unsubscribe(subscriber: Subscriber): void {
    this.#subscribers.delete(subscriber);
  }

  /** Tells those who wait that no job will be done until the worker is repaired. */
  announceFailure(reason: string): void {
    for (const subscriber of this.#subscribers) subscriber.notify('workerFailed', { reason });
  }
}
