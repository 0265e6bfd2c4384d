/** How a store speaks to libsql: prepared statements, transactions, pages. */
import type Database from 'libsql';
import { fittingPage } from './job-row.js';

export class SqliteStatements {
  readonly #db: Database.Database;
  readonly #prepared = new Map<string, Database.Statement>();

  constructor(db: Database.Database) {
    this.#db = db;
  }

  /**
   * Prepared once: a statement costs more than most queries, and its memory is given back only by the garbage
   * collector.
   */
  prepare(sql: string): Database.Statement {
    const known = this.#prepared.get(sql) ?? this.#db.prepare(sql);
    this.#prepared.set(sql, known);
    return known;
  }

  /**
   * Every write goes through here: a single statement with RETURNING gives its row before it is committed, and libsql
   * keeps to itself that the commit failed.
   */
  transaction<T>(operation: () => T): T {
    this.#db.exec('BEGIN IMMEDIATE');
    try {
      const result = operation();
      this.#db.exec('COMMIT');
      return result;
    } catch (error) {
      // A full disk has ended the transaction already.
      if (this.#db.inTransaction) this.#db.exec('ROLLBACK');
      throw error;
    }
  }

  /** One page of what `sql` selects (it ends in its conditions), newest first; rows have their `position`. */
  page<R extends { position: number; request?: string }>(
    sql: string,
    cursor: number | null,
    limit: number,
    ...values: unknown[]
  ): { rows: R[]; next: number | null } {
    const before = cursor === null ? '' : 'AND position < ?';
    const bounds = cursor === null ? [limit + 1] : [cursor, limit + 1];
    const all = this.prepare(`${sql} ${before} ORDER BY position DESC LIMIT ?`);
    const rows = all.all(...values, ...bounds) as R[];
    const shown = fittingPage(rows, limit);
    return { rows: shown, next: rows.length > shown.length ? (shown.at(-1) as R).position : null };
  }
}
