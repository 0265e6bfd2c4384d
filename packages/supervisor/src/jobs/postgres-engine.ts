/**
 * What pg-boss does for us: who holds which job, and whether that holder still lives, judged by the clock of the
 * database. Which job comes next is ours: an entry is taken by its ticket, which no other entry has.
 */
import { randomUUID } from 'node:crypto';
import type { PgBoss } from 'pg-boss';
import type { PostgresDatabase, Sql } from './postgres-database.js';

/** Of pg-boss: all that is to be drawn. */
const QUEUE = 'pictures';
const YEAR_SECONDS = 365 * 86_400;

/** Each is a trap where it is left as it is: a job may take hours, wait for weeks, and die as often as it likes. */
const QUEUE_OPTIONS = {
  policy: 'standard',
  // The least that there is: a holder that says nothing for so long has lost its job.
  heartbeatSeconds: 10,
  // The most that there is.
  expireInSeconds: 86_400,
  retryLimit: 100_000,
  retryDelay: 0,
  // What waits is never thrown away.
  retentionSeconds: 10 * YEAR_SECONDS,
  // Our own table is the record.
  deleteAfterSeconds: 3600,
} as const;

/** An entry in the hands of somebody: `retryCount` counts how often it has been taken again. */
export interface Claim {
  id: string;
  retryCount: number;
}

/** pg-boss gives it, and does not say so in its types. */
interface Affected {
  affected: number;
  settled?: string[];
}

export class PostgresEngine {
  readonly #boss: PgBoss;
  readonly #schema: string;

  constructor({ boss, queueSchema }: PostgresDatabase) {
    this.#boss = boss;
    this.#schema = queueSchema;
  }

  async createQueue(): Promise<void> {
    await this.#boss.createQueue(QUEUE, QUEUE_OPTIONS);
  }

  /** Reads once what is asked for again and again, outside of any transaction. */
  async warm(): Promise<void> {
    await this.#boss.findJobs(QUEUE, { id: randomUUID() });
  }

  /** Enters what waits; gives the ids of the entries, in their order. */
  async enter(sql: Sql, tickets: number[]): Promise<string[]> {
    const entries = tickets.map((priority) => ({ id: randomUUID(), priority }));
    await this.#boss.insert(QUEUE, entries, { db: sql.db });
    return entries.map(({ id }) => id);
  }

  /** Null where the entry is not to be had. */
  async take(sql: Sql, ticket: number): Promise<Claim | null> {
    // Whatever the database's clock says: what waits may be taken.
    const own = { minPriority: ticket, maxPriority: ticket, ignoreStartAfter: true };
    const [taken] = await this.#boss.fetch(QUEUE, { ...own, batchSize: 1, includeMetadata: true, db: sql.db });
    return taken ? { id: taken.id, retryCount: taken.retryCount } : null;
  }

  /** Whether it was still held in this claim. */
  async complete(sql: Sql, claim: Claim): Promise<boolean> {
    return ((await this.#boss.complete(QUEUE, claim, null, { db: sql.db })) as Affected).affected === 1;
  }

  /** Puts it back at its place. Whether it was still held in this claim. */
  async giveBack(sql: Sql, claim: Claim, reason: string): Promise<boolean> {
    return ((await this.#boss.fail(QUEUE, claim, { reason }, { db: sql.db })) as Affected).affected === 1;
  }

  /** Whatever has become of it. */
  async remove(sql: Sql, ids: string[]): Promise<void> {
    if (ids.length > 0) await this.#boss.deleteJob(QUEUE, ids, { db: sql.db });
  }

  /** Whether somebody holds it in this claim. */
  async isHeld(sql: Sql, { id, retryCount }: Claim): Promise<boolean> {
    const [entry] = await this.#boss.findJobs(QUEUE, { id, db: sql.db });
    return entry?.state === 'active' && entry.retryCount === retryCount;
  }

  /**
   * SQL: whether somebody holds the entry that `row`, one of our table, names in the claim that it names. Of all that
   * run at once: to ask for each would be a statement for each card of each machine, from every machine.
   */
  holds(row: string): string {
    return `EXISTS (SELECT FROM ${this.#schema}.job AS held WHERE held.name = '${QUEUE}' AND held.id = ${row}.entry
      AND held.state = 'active' AND held.retry_count = ${row}.retry_count)`;
  }

  /** Whether it waits to be taken. */
  async isWaiting(sql: Sql, id: string): Promise<boolean> {
    const [entry] = await this.#boss.findJobs(QUEUE, { id, db: sql.db });
    return entry?.state === 'created' || entry?.state === 'retry';
  }

  /** Says that these are still being worked at; gives those that are still held. */
  async beat(sql: Sql, claims: Claim[]): Promise<Set<string>> {
    const { settled = [] } = (await this.#boss.touch(QUEUE, claims, { db: sql.db })) as Affected;
    return new Set(settled);
  }

  /** Takes from holders that have said nothing for too long what they hold. */
  async sweep(): Promise<void> {
    await this.#boss.supervise(QUEUE);
  }
}
