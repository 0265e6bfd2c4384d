/** Who waits where: the place of queued jobs and the work before them, read from the store only when it has changed. */
import type { Waiting } from './job-store.js';

/** Jobs in line whose place is known. */
const LINE_MAX = 1000;

export interface Place {
  /** From 1. */
  position: number;
  work: number;
  workAhead: number;
}

export class QueueLine {
  readonly #read: (limit: number) => Promise<Waiting[]>;
  #places: Map<string, Place> | null = null;
  /** Counts the changes: what was read before one is not kept after it. */
  #changes = 0;

  constructor(read: (limit: number) => Promise<Waiting[]>) {
    this.#read = read;
  }

  changed(): void {
    this.#changes++;
    this.#places = null;
  }

  /** By job, in the order in which they will be drawn. */
  async places(): Promise<Map<string, Place>> {
    if (this.#places) return this.#places;
    const changes = this.#changes;
    let workAhead = 0;
    const places = new Map<string, Place>();
    for (const [index, { id, work }] of (await this.#read(LINE_MAX)).entries()) {
      places.set(id, { position: index + 1, work, workAhead });
      workAhead += work;
    }
    if (changes === this.#changes) this.#places = places;
    return places;
  }
}
