/** Opens the job store on PostgreSQL. Nothing of it is loaded before it is asked for. */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { ConstructorOptions } from 'pg-boss';
import type { JobStore } from './job-store.js';
import type { ClaimHooks } from './postgres-claims.js';
import { PostgresDatabase, queueSchemaOf, whyAway } from './postgres-database.js';
import { PostgresEngine } from './postgres-engine.js';
import { factsOf, type ServerFacts } from './postgres-facts.js';
import { postgresJobStore } from './postgres-job-store.js';
import { migrate, requireCurrent } from './postgres-schema.js';

const SCHEMA = 'qwen_supervisor';
/** What pg-boss asks for. */
const NODE_MIN = [22, 12] as const;

/**
 * Of every session: a machine that dies in mid-transaction leaves rows locked, and they must be free again within
 * seconds, not hours.
 */
const SESSION = [
  'idle_in_transaction_session_timeout=5s',
  'tcp_keepalives_idle=5',
  'tcp_keepalives_interval=2',
  'tcp_keepalives_count=3',
  'client_connection_check_interval=2s',
  'synchronous_commit=on',
].map((setting) => `-c ${setting}`);

/** For pg-boss in one of our databases; `schema` is that of our tables. */
export function bossOptions(schema: string): ConstructorOptions {
  return {
    schema: queueSchemaOf(schema),
    application_name: 'qwen-supervisor',
    // Each at its time: a sweep right after an outage would take everything from everybody.
    supervise: false,
    schedule: false,
    monitorIntervalSeconds: 2,
    migrate: false,
    createSchema: false,
  };
}

/** @throws CodedError STORE_NODE_TOO_OLD, STORE_UNREACHABLE, STORE_SCHEMA_OLD, STORE_SCHEMA_NEWER */
export async function openPostgresJobStore(url: string, host: string, hooks: ClaimHooks): Promise<JobStore> {
  const database = await connect(url, false);
  try {
    return await inOurWords(() => usable(database, host, hooks));
  } catch (error) {
    await database.boss.stop({ graceful: false });
    throw error;
  }
}

/**
 * Makes the tables of the store, or brings them up to date. Tells whether something was to be done.
 * @throws CodedError STORE_NODE_TOO_OLD, STORE_UNREACHABLE, STORE_SCHEMA_NEWER
 */
export async function migratePostgres(url: string): Promise<boolean> {
  const database = await connect(url, true);
  try {
    return await inOurWords(() => install(database));
  } finally {
    await database.boss.stop({ graceful: false });
  }
}

/**
 * What the server is like, and what is wrong with our tables there; null: nothing.
 * @throws CodedError STORE_NODE_TOO_OLD, STORE_UNREACHABLE
 */
export async function lookAtServer(url: string): Promise<{ facts: ServerFacts; schema: CodedError | null }> {
  const database = await databaseAt(url, false);
  try {
    const schema = await inOurWords(() => startAndCheck(database)).then(
      () => null,
      (error: unknown) => {
        if (error instanceof CodedError && error.code.startsWith('STORE_SCHEMA')) return error;
        throw error;
      },
    );
    return { facts: await inOurWords(() => factsOf(database.alone)), schema };
  } finally {
    await database.boss.stop({ graceful: false });
  }
}

/** Pg-boss has been started, which makes its own tables where it may. */
export async function install(database: PostgresDatabase): Promise<boolean> {
  await new PostgresEngine(database).createQueue();
  return migrate(database);
}

/** @throws CodedError STORE_SCHEMA_OLD, STORE_SCHEMA_NEWER */
export async function usable(database: PostgresDatabase, host: string, hooks: ClaimHooks): Promise<JobStore> {
  await requireCurrent(database);
  return postgresJobStore({ database, engine: new PostgresEngine(database), hooks, host });
}

async function connect(url: string, mayMigrate: boolean): Promise<PostgresDatabase> {
  const database = await databaseAt(url, mayMigrate);
  try {
    await inOurWords(() => start(database));
  } catch (error) {
    await database.boss.stop({ graceful: false });
    throw error;
  }
  return database;
}

async function databaseAt(url: string, mayMigrate: boolean): Promise<PostgresDatabase> {
  requireNode();
  const { PgBoss } = await import('pg-boss');
  const connection = {
    connectionString: url,
    options: SESSION.join(' '),
    max: 5,
    connectionTimeoutMillis: 3000,
    // A statement on a connection that is half open would be waited for without end; only a migration may take long.
    ...(mayMigrate ? {} : { query_timeout: 4000 }),
    keepAlive: true,
  };
  const boss = new PgBoss({
    ...bossOptions(SCHEMA),
    ...connection,
    migrate: mayMigrate,
    createSchema: mayMigrate,
  });
  // What fails is told to whoever asked; a connection that breaks while nobody asks is replaced.
  boss.on('error', () => {});
  return new PostgresDatabase(boss, SCHEMA);
}

async function startAndCheck(database: PostgresDatabase): Promise<void> {
  await start(database);
  await requireCurrent(database);
}

/** @throws CodedError STORE_SCHEMA_OLD, STORE_SCHEMA_NEWER; its connections stay open */
async function start(database: PostgresDatabase): Promise<void> {
  await database.boss.start().catch(async (error: Error) => {
    if (!/not installed|requires migrations/.test(error.message)) throw error;
    await requireCurrent(database);
    throw new CodedError('STORE_SCHEMA_OLD');
  });
}

function requireNode(): void {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major > NODE_MIN[0] || (major === NODE_MIN[0] && minor >= NODE_MIN[1])) return;
  throw new CodedError(
    'STORE_NODE_TOO_OLD',
    `this is Node ${process.versions.node}, which the shared job database does not run on`,
  );
}

async function inOurWords<T>(act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (cause) {
    const code = cause instanceof CodedError ? null : whyAway(cause);
    if (code === null) throw cause;
    throw new CodedError(code, `the shared job database: ${(cause as Error).message}`, { cause });
  }
}
