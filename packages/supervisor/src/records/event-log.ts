/**
 * The stream of events: numbered, the last ones kept for those who come late, sent to all who subscribed as fast as
 * each reads. Who has fallen behind costs a place in what is kept, and no memory; who is too far behind is told that it
 * has missed some.
 */
import { randomBytes } from 'node:crypto';
import type { Link } from '@qwen-supervisor/ipc/link';
import { EventRing } from '@qwen-supervisor/protocol/event-ring';
import type { NumberedEvent, SystemEvent } from '@qwen-supervisor/protocol/events';
import { isTerminal } from '@qwen-supervisor/protocol/job';
import type { ClientMethods, SupervisorMethods } from '@qwen-supervisor/protocol/messages';

/** One that is no link reads at once. */
type Subscriber = Pick<Link<ClientMethods, SupervisorMethods>, 'notify'> & {
  isBehind?(): boolean;
  drained?(): Promise<void>;
};

/** One that does not read is not waited for. */
const DRAIN_LIMIT_MS = 1000;

interface Reader {
  readonly subscriber: Subscriber;
  /** Number of the last event that it was sent. */
  sentSeq: number;
  /** Until it has read what it was sent; then it is sent what came meanwhile. */
  catchingUp: Promise<void> | null;
  /** It was waited for in vain. */
  isStalled: boolean;
}

export class EventLog {
  /** Tells the events of this supervisor from those of another. */
  readonly run = randomBytes(6).toString('hex');
  readonly #readers = new Map<Subscriber, Reader>();
  readonly #ring = new EventRing();
  #seq = 0;
  readonly #onEvent: (event: NumberedEvent, isOurs: boolean) => void;
  /** The last of each job that runs. */
  readonly #previews = new Map<string, Uint8Array>();

  /** Number of the last event. */
  get lastSeq(): number {
    return this.#seq;
  }

  /** `onEvent` hears each at once; `isOurs`: it happened here, and not on another machine. */
  constructor(onEvent: (event: NumberedEvent, isOurs: boolean) => void = () => {}) {
    this.#onEvent = onEvent;
  }

  publish(event: SystemEvent): void {
    this.#publish(event, true);
  }

  #publish(event: SystemEvent, isOurs: boolean): void {
    const numbered: NumberedEvent = { ...event, run: this.run, seq: ++this.#seq, at: new Date().toISOString() };
    this.#onEvent(numbered, isOurs);
    if (event.type === 'step' && event.preview) this.#previews.set(event.jobId, event.preview);
    if ('job' in event && isTerminal(event.job.status)) this.#previews.delete(event.jobId);
    this.#ring.push(numbered);
    for (const reader of this.#readers.values()) if (!reader.catchingUp) this.#send(reader, numbered);
  }

  /** So that all can read every one of them: as fast as they do, while they do. */
  publishAll(events: readonly SystemEvent[]): Promise<void> {
    return this.#publishAll(events, true);
  }

  /** What has happened on another machine. */
  relay(events: readonly SystemEvent[]): Promise<void> {
    return this.#publishAll(events, false);
  }

  async #publishAll(events: readonly SystemEvent[], isOurs: boolean): Promise<void> {
    for (const event of events) {
      this.#publish(event, isOurs);
      await this.#caughtUp();
    }
  }

  /** The last preview of a job that has not ended; null before any. */
  preview(jobId: string): Uint8Array | null {
    return this.#previews.get(jobId) ?? null;
  }

  /** First what is kept of the events after `since`, then all that come. */
  subscribe(subscriber: Subscriber, since: number | null): void {
    const isLost = since !== null && this.#ring.after(since) === null;
    const sentSeq = since === null ? this.#seq : isLost ? 0 : since;
    const reader: Reader = { subscriber, sentSeq, catchingUp: null, isStalled: false };
    this.#readers.set(subscriber, reader);
    // The first of all is asked for by those who want whatever there is.
    this.#catchUp(reader, since === 0 || !isLost);
  }

  unsubscribe(subscriber: Subscriber): void {
    this.#readers.delete(subscriber);
  }

  /** Something has happened that nobody told: what is kept is not all there was, and who listens asks anew. */
  missed(): void {
    this.#ring.forget();
    for (const { subscriber, catchingUp } of this.#readers.values()) if (!catchingUp) subscriber.notify('missed', {});
  }

  /** Tells those who wait that no job will be done until the worker is repaired. */
  announceFailure(reason: string): void {
    for (const subscriber of this.#readers.keys()) subscriber.notify('workerFailed', { reason });
  }

  #send(reader: Reader, event: NumberedEvent): void {
    const { subscriber } = reader;
    subscriber.notify('event', event);
    reader.sentSeq = event.seq;
    if (!subscriber.isBehind?.()) return;
    reader.catchingUp = (subscriber.drained?.() ?? Promise.resolve()).then(() => {
      reader.catchingUp = null;
      reader.isStalled = false;
      if (this.#readers.get(subscriber) === reader) this.#catchUp(reader, false);
    });
  }

  /** Sends what is kept until the reader is behind again, or has all. */
  #catchUp(reader: Reader, takesWhatThereIs: boolean): void {
    const kept = this.#ring.after(reader.sentSeq);
    if (kept === null && !takesWhatThereIs) reader.subscriber.notify('missed', {});
    for (const event of kept ?? this.#ring.all()) {
      this.#send(reader, event);
      if (reader.catchingUp) return;
    }
  }

  /** Resolves when all have read what they were sent; who has not within the limit is not waited for until it has. */
  async #caughtUp(): Promise<void> {
    for (;;) {
      const behind = [...this.#readers.values()].filter(({ catchingUp, isStalled }) => catchingUp && !isStalled);
      if (behind.length === 0) return;
      let timer: NodeJS.Timeout | undefined;
      const limit = new Promise<'late'>((resolve) => {
        timer = setTimeout(() => resolve('late'), DRAIN_LIMIT_MS);
      });
      const first = await Promise.race([Promise.all(behind.map(({ catchingUp }) => catchingUp)), limit]);
      clearTimeout(timer);
      if (first === 'late') for (const reader of behind) reader.isStalled = reader.catchingUp !== null;
    }
  }
}
