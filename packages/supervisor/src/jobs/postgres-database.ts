/**
 * The database that several machines share, through pg-boss and its connections: what is ours and what is the engine's
 * go into one transaction.
 */
import type { Db, PgBoss } from 'pg-boss';

/** Statements in our schema, alone or in a transaction. */
export class Sql {
  /** What pg-boss takes as `db`, so that its statements belong to the same transaction. */
  readonly db: Db;

  constructor(db: Db) {
    this.db = db;
  }

  async all<R>(sql: string, ...values: unknown[]): Promise<R[]> {
    const { rows } = await this.db.executeSql(sql, values);
    return rows;
  }

  async one<R>(sql: string, ...values: unknown[]): Promise<R | undefined> {
    return (await this.all<R>(sql, ...values))[0];
  }
}

/** The answer to a commit was lost: it may have happened, or not. */
export class CommitUnknown extends Error {}

export class PostgresDatabase {
  readonly boss: PgBoss;
  /** Of our tables; those of pg-boss lie in another one. */
  readonly schema: string;

  constructor(boss: PgBoss, schema: string) {
    this.boss = boss;
    this.schema = schema;
  }

  get alone(): Sql {
    return new Sql(this.boss.getDb());
  }

  /** @throws CommitUnknown, or what the operation or the database throws: then nothing has happened */
  async transaction<T>(operation: (sql: Sql) => Promise<T>): Promise<T> {
    const begun = await this.boss.getDb().beginTransaction?.();
    if (!begun) throw new Error('the database connection knows no transactions');
    let result: T;
    try {
      result = await operation(new Sql(begun.db));
    } catch (error) {
      await begun.rollback();
      throw error;
    }
    try {
      await begun.commit();
    } catch (cause) {
      throw new CommitUnknown(`the commit was not answered: ${(cause as Error).message}`, { cause });
    }
    return result;
  }
}

/** Classes of SQLSTATE: connection, resources, operator, and a transaction that was in another's way. */
const TRANSIENT_STATE = /^(08|53|57P|40001|40P01|25P03)/;
/** What node-postgres and the system say of a connection. */
const TRANSIENT_MESSAGE = /^(E[A-Z]+$)|connection|timeout|terminat|getaddrinfo|ECONN|EHOST|ENET|EPIPE/i;

/** Whether what failed so may succeed later: the database is away, restarts, or is full. */
export function isAway(error: unknown): boolean {
  if (error instanceof CommitUnknown) return true;
  const { code, message = '' } = error as { code?: string; message?: string };
  // An SQLSTATE has five characters; those of the system are longer or shorter words.
  if (code !== undefined && /^[0-9A-Z]{5}$/.test(code) && /\d/.test(code)) return TRANSIENT_STATE.test(code);
  return TRANSIENT_MESSAGE.test(code ?? message) || TRANSIENT_MESSAGE.test(message);
}
