/** The stream of events: numbered, the last ones kept for those who come late, sent to all who subscribed. */
import type { Link } from '@qwen-supervisor/ipc/link';
import type { NumberedEvent, SystemEvent } from '@qwen-supervisor/protocol/events';
import type { ClientMethods, SupervisorMethods } from '@qwen-supervisor/protocol/messages';

type Subscriber = Pick<Link<ClientMethods, SupervisorMethods>, 'notify'>;

/** Events that are kept. Steps are not: each is worth nothing after the next. */
const KEPT = 1000;

export class EventLog {
  readonly #subscribers = new Set<Subscriber>();
  readonly #kept: NumberedEvent[] = [];
  #seq = 0;

  publish(event: SystemEvent): void {
    const numbered: NumberedEvent = { ...event, seq: ++this.#seq, at: new Date().toISOString() };
    for (const subscriber of this.#subscribers) subscriber.notify('event', numbered);
    if (event.type === 'step') return;
    this.#kept.push(numbered);
    if (this.#kept.length > KEPT) this.#kept.shift();
  }

  /** First what is kept of the events after `since`, then all that come. */
  subscribe(subscriber: Subscriber, since: number | null): void {
    if (since !== null) {
      for (const event of this.#kept) if (event.seq > since) subscriber.notify('event', event);
    }
    this.#subscribers.add(subscriber);
  }

  unsubscribe(subscriber: Subscriber): void {
    this.#subscribers.delete(subscriber);
  }

  /** Tells those who wait that no job will be done until the worker is repaired. */
  announceFailure(reason: string): void {
    for (const subscriber of this.#subscribers) subscriber.notify('workerFailed', { reason });
  }
}
