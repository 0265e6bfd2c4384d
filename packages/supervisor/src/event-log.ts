/** The stream of events: numbered, the last ones kept for those who come late, sent to all who subscribed. */
import type { Link } from '@qwen-supervisor/ipc/link';
import type { NumberedEvent, SystemEvent } from '@qwen-supervisor/protocol/events';
import type { ClientMethods, SupervisorMethods } from '@qwen-supervisor/protocol/messages';

type Subscriber = Pick<Link<ClientMethods, SupervisorMethods>, 'notify'>;

/** Events that are kept, and characters of the texts in them. Steps are not: each is worth nothing after the next. */
const KEPT = 1000;
const KEPT_CHARACTERS = 2 << 20;

export class EventLog {
  readonly #subscribers = new Set<Subscriber>();
  readonly #kept: NumberedEvent[] = [];
  #keptCharacters = 0;
  #seq = 0;

  publish(event: SystemEvent): void {
    const numbered: NumberedEvent = { ...event, seq: ++this.#seq, at: new Date().toISOString() };
    for (const subscriber of this.#subscribers) subscriber.notify('event', numbered);
    if (event.type === 'step') return;
    this.#kept.push(numbered);
    this.#keptCharacters += charactersOf(numbered);
    while (this.#kept.length > KEPT || this.#keptCharacters > KEPT_CHARACTERS) {
      this.#keptCharacters -= charactersOf(this.#kept.shift() as NumberedEvent);
    }
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

/** Of the texts that others have written, the only ones that may be long. */
function charactersOf(event: NumberedEvent): number {
  if ('job' in event) return event.job.prompt.length + event.job.negativePrompt.length;
  if (event.type === 'crash') return event.crash.tail.reduce((sum, line) => sum + line.length, 0);
  return 0;
}
