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

  constructor(read: (limit: number) => Promise<Waiting[]>) {
    this.#read = read;
  }

  changed(): void {
    this.#places = null;
  }

  /** By job, in the order in which they will be drawn. */
  async places(): Promise<Map<string, Place>> {
    if (this.#places) return this.#places;
    let workAhead = 0;
    const places = new Map<string, Place>();
    for (const [index, { id, work }] of (await this.#read(LINE_MAX)).entries()) {
      places.set(id, { position: index + 1, work, workAhead });
      workAhead += work;
    }
    this.#places = places;
    return places;
  }
}
