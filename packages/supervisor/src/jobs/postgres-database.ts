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
    const { rows } = await this.db.executeSql(sql, values.map(withoutNul));
    return rows;
  }

  async one<R>(sql: string, ...values: unknown[]): Promise<R | undefined> {
    return (await this.all<R>(sql, ...values))[0];
  }
}

/** PostgreSQL has no such character; nothing of ours has it, so that what is looked for is not found. */
function withoutNul(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNul);
  return typeof value === 'string' ? value.replaceAll('\0', '\ufffd') : value;
}

export function queueSchemaOf(schema: string): string {
  return `${schema}_queue`;
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

  /** Of the tables of pg-boss. */
  get queueSchema(): string {
    return queueSchemaOf(this.schema);
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

/** SQLSTATE of what no waiting mends: what we send is wrong, or what is there is damaged. */
const LASTING = /^(0A|2[0-4]|25(?!006|P0[34])|3[EF]|42(?!501)|XX00[12])/;
/**
 * SQLSTATE of what was not found where our tables are, and what pg-boss says then: a backup of an older version was
 * brought back, or is just being brought back.
 */
const UNMADE = /^(3F000|42P01|42703|42883|PGBOSS_QUEUE_NOT_FOUND)$/;
/** pg-boss's, which has no code within a transaction of ours. */
const NO_QUEUE = /^Queue .* does not exist$/;
/** Of the network and of TLS, and not what Node says of a fault of ours. */
const OF_SYSTEM = /^(E(?!RR_)|CERT_|ERR_(SOCKET|SSL|TLS|STREAM))[A-Z_]+$/;
/** What node-postgres says of its connections, which has no code. */
const AWAY = /connect|timeout|terminat|not queryable|ssl|tls|certificate/i;

/**
 * What to call it where what failed so may succeed later: the database is away, restarts, is full, lets nobody in, or
 * its tables are yet to be made or changed. Null where it will not.
 */
export function whyAway(error: unknown): 'STORE_UNREACHABLE' | 'STORE_SCHEMA_OLD' | null {
  if (error instanceof CommitUnknown) return 'STORE_UNREACHABLE';
  const { code = '', message = '', path } = error as { code?: string; message?: string; path?: string };
  if (UNMADE.test(code) || NO_QUEUE.test(message)) return 'STORE_SCHEMA_OLD';
  const isAway = /^(?=.*\d)[0-9A-Z]{5}$/.test(code)
    ? !LASTING.test(code)
    : // Of the system, but not of a file; the rest has no code.
      path === undefined && (OF_SYSTEM.test(code) || AWAY.test(message));
  return isAway ? 'STORE_UNREACHABLE' : null;
}
