/**
 * Jobs whose client went away before their picture was there. Clients give up after some minutes and send the same
 * request again; a picture that is being drawn for nobody is then theirs, and is not drawn a second time.
 */
import type { Job } from '@qwen-supervisor/protocol/job';
import type { FastifyRequest } from 'fastify';

/** A client that comes back does so soon. */
const KEPT_MS = 900_000;
const KEPT_MAX = 100;

interface Left {
  jobs: Job[];
  atMs: number;
}

export class Abandoned {
  /** By who asked, and what for; the last that went away last. */
  readonly #left = new Map<string, Left>();

  add(request: FastifyRequest, jobs: Job[]): void {
    const name = nameOf(request);
    this.#left.delete(name);
    this.#left.set(name, { jobs, atMs: performance.now() });
    const [oldest] = this.#left.keys();
    if (this.#left.size > KEPT_MAX && oldest !== undefined) this.#left.delete(oldest);
  }

  /** The jobs of the same request by the same client, once; null where none went away of late. */
  take(request: FastifyRequest): Job[] | null {
    const name = nameOf(request);
    const left = this.#left.get(name);
    this.#left.delete(name);
    return left && performance.now() - left.atMs < KEPT_MS ? left.jobs : null;
  }
}

function nameOf({ caller, ip, fingerprint }: FastifyRequest): string {
  return `${caller.name || ip} ${fingerprint}`;
}
