/** Who waits where: the place of queued jobs and the work before them, read from the store only when it has changed. */
import type { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Job } from '@qwen-supervisor/protocol/job';
import type { QueueStatus } from '@qwen-supervisor/protocol/status';
import { type JobStore, listAll } from './job-store.js';
import type { OrderedWrites } from './ordered-writes.js';

/** Jobs in line whose place is known. */
const LINE_MAX = 1000;

export interface Place {
  /** From 1. */
  position: number;
  work: number;
  workAhead: number;
}

export class QueueLine {
  readonly #store: JobStore;
  readonly #writes: OrderedWrites;
  readonly #problem: () => string | null;
  #counted = { queued: 0, running: 0 };
  #places: Map<string, Place> | null = null;
  /** Counts the changes: what was read before one is not kept after it. */
  #changes = 0;

  /** `problem`: why nothing gets on, where something is awaited. */
  constructor(store: JobStore, writes: OrderedWrites, problem: () => string | null) {
    this.#store = store;
    this.#writes = writes;
    this.#problem = problem;
  }

  /** How many there are; while the store does not answer as last known: a status is wanted then above all. */
  async standing(): Promise<Pick<QueueStatus, 'queued' | 'running' | 'problem'>> {
    try {
      this.#counted = await this.#writes.inOurErrors(this.#store.counts());
      return { ...this.#counted, problem: this.#problem() };
    } catch (error) {
      return { ...this.#counted, problem: this.#problem() ?? (error as CodedError).message };
    }
  }

  /** The first in line, in their order. */
  async first(limit: number): Promise<Job[]> {
    const places = await this.places();
    const ids = [...places.keys()].slice(0, limit);
    const filter = { status: 'queued' as const, source: null, group: null, ids };
    const jobs = await this.#writes.inOurErrors(listAll(this.#store, filter));
    const placeOf = ({ id }: Job) => places.get(id)?.position ?? 0;
    return jobs.sort((a, b) => placeOf(a) - placeOf(b));
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
    for (const [index, { id, work }] of (await this.#writes.inOurErrors(this.#store.waiting(LINE_MAX))).entries()) {
      places.set(id, { position: index + 1, work, workAhead });
      workAhead += work;
    }
    if (changes === this.#changes) this.#places = places;
    return places;
  }
}
