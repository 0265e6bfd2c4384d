/**
 * The last events, for those who come late or come back. Kept by the supervisor, and by the API for its own
 * listeners.
 */
import type { NumberedEvent } from './events.js';

/** Events that are kept, and characters of the texts in them. */
const KEPT = 1000;
const KEPT_CHARACTERS = 2 << 20;

export class EventRing {
  readonly #kept: NumberedEvent[] = [];
  #characters = 0;
  /** Number of the newest event that is no longer kept. */
  #droppedSeq = 0;
  /** Whether the events before the next one were heard, too. */
  #knowsBefore = false;

  /** Steps are not kept: each is worth nothing after the next. */
  push(event: NumberedEvent): void {
    if (event.type === 'step') return;
    // Who begins to listen late has missed what was before, and so has who was not told everything.
    if (this.#kept.length === 0 && !this.#knowsBefore) this.#droppedSeq = event.seq - 1;
    this.#knowsBefore = true;
    this.#kept.push(event);
    this.#characters += charactersOf(event);
    while (this.#kept.length > KEPT || this.#characters > KEPT_CHARACTERS) {
      const dropped = this.#kept.shift() as NumberedEvent;
      this.#characters -= charactersOf(dropped);
      this.#droppedSeq = dropped.seq;
    }
  }

  /** What came after the event of this number; null where some of it is no longer kept. */
  after(seq: number): NumberedEvent[] | null {
    return seq < this.#droppedSeq ? null : this.#kept.filter((event) => event.seq > seq);
  }

  /** Some that came after those that are kept are not known: whoever comes back has missed some. */
  forget(): void {
    this.#droppedSeq = Number.POSITIVE_INFINITY;
    this.#knowsBefore = false;
    this.#kept.length = 0;
    this.#characters = 0;
  }

  all(): readonly NumberedEvent[] {
    return this.#kept;
  }
}

/** Of the texts that others have written, the only ones that may be long. */
function charactersOf(event: NumberedEvent): number {
  if ('job' in event) return event.job.prompt.length + event.job.negativePrompt.length;
  if (event.type === 'crash') return event.crash.tail.reduce((sum, line) => sum + line.length, 0);
  if (event.type === 'pictures') return event.ids.reduce((sum, id) => sum + id.length, 0);
  return 0;
}
