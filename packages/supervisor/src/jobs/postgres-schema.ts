/** Our tables in PostgreSQL, beside those of pg-boss: made by `store migrate`, and only looked at by a start. */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { PostgresDatabase, Sql } from './postgres-database.js';

/**
 * Times are text as in the other store, and those of the database's own clock. What is asked for of a request has a
 * column of its own: the request itself may hold what PostgreSQL does not take as JSON.
 */
function migrations(schema: string): string[] {
  return [
    `CREATE TABLE ${schema}.jobs (
      position INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      status TEXT NOT NULL CHECK (status IN ('queued', 'running', 'done', 'failed', 'cancelled')),
      request TEXT NOT NULL,
      width INTEGER NOT NULL,
      height INTEGER NOT NULL,
      prompt TEXT NOT NULL,
      init_image TEXT,
      mask TEXT,
      priority INTEGER NOT NULL,
      rank INTEGER NOT NULL,
      source TEXT NOT NULL,
      owner TEXT,
      group_id TEXT,
      retry_of TEXT,
      work DOUBLE PRECISION NOT NULL,
      idempotency_key TEXT,
      fingerprint TEXT,
      entry UUID NOT NULL,
      retry_count INTEGER NOT NULL DEFAULT 0,
      host TEXT,
      step INTEGER NOT NULL DEFAULT 0,
      attempts INTEGER NOT NULL DEFAULT 0,
      cancel_requested INTEGER NOT NULL DEFAULT 0,
      cancel_keeps BOOLEAN NOT NULL DEFAULT false,
      own_deaths INTEGER NOT NULL DEFAULT 0,
      outside_deaths INTEGER NOT NULL DEFAULT 0,
      resumed_at_step INTEGER,
      started_over_reason TEXT,
      devices TEXT NOT NULL DEFAULT '[]',
      model TEXT,
      starred INTEGER NOT NULL DEFAULT 0,
      trashed_at TEXT,
      image TEXT,
      error TEXT,
      created_at TEXT NOT NULL,
      finished_at TEXT,
      CHECK ((finished_at IS NULL) = (status IN ('queued', 'running')))
    );
    CREATE INDEX jobs_in_turn ON ${schema}.jobs (priority DESC, rank) WHERE status = 'queued';
    CREATE INDEX jobs_running ON ${schema}.jobs (host) WHERE status = 'running';
    CREATE INDEX jobs_by_status ON ${schema}.jobs (status, position);
    CREATE INDEX jobs_by_source ON ${schema}.jobs (source, position);
    CREATE INDEX jobs_by_group ON ${schema}.jobs (group_id, position) WHERE group_id IS NOT NULL;
    CREATE INDEX jobs_by_key ON ${schema}.jobs (idempotency_key) WHERE idempotency_key IS NOT NULL;
    CREATE INDEX jobs_by_owner ON ${schema}.jobs (owner) WHERE owner IS NOT NULL AND status = 'queued';
    CREATE INDEX jobs_by_end ON ${schema}.jobs (finished_at) WHERE finished_at IS NOT NULL;
    CREATE INDEX jobs_by_input ON ${schema}.jobs (init_image) WHERE init_image IS NOT NULL;
    CREATE INDEX jobs_by_mask ON ${schema}.jobs (mask) WHERE mask IS NOT NULL;
    CREATE INDEX jobs_in_trash ON ${schema}.jobs (trashed_at) WHERE trashed_at IS NOT NULL;
    CREATE UNIQUE INDEX jobs_by_image ON ${schema}.jobs ((image::json ->> 'id')) WHERE image IS NOT NULL;
    CREATE FUNCTION ${schema}.now_text() RETURNS TEXT LANGUAGE SQL AS
      $$ SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') $$;`,
    `ALTER TABLE ${schema}.jobs ADD COLUMN machine TEXT;
    CREATE TABLE ${schema}.machines (
      host TEXT PRIMARY KEY,
      name TEXT NOT NULL UNIQUE,
      is_drained BOOLEAN NOT NULL DEFAULT false,
      is_stopped BOOLEAN NOT NULL DEFAULT false,
      seen_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
      report TEXT NOT NULL
    );`,
    // How much all pictures are is asked with each that is drawn: from the index alone.
    `ALTER TABLE ${schema}.jobs
      ADD COLUMN bytes DOUBLE PRECISION GENERATED ALWAYS AS (coalesce((image::json ->> 'bytes')::float8, 0)) STORED;
    CREATE INDEX jobs_by_size ON ${schema}.jobs (bytes, starred) WHERE image IS NOT NULL;`,
    `ALTER TABLE ${schema}.jobs ADD COLUMN device_reason TEXT;`,
  ];
}

async function versionOf(sql: Sql, schema: string): Promise<number | null> {
  const [row] = await sql.all<{ there: boolean }>('SELECT to_regclass($1) IS NOT NULL AS there', `${schema}.version`);
  if (!row?.there) return null;
  const [version] = await sql.all<{ version: number }>(`SELECT version FROM ${schema}.version`);
  return version?.version ?? 0;
}

/** @throws CodedError STORE_SCHEMA_OLD, STORE_SCHEMA_NEWER */
export async function requireCurrent({ alone, schema }: PostgresDatabase): Promise<void> {
  const version = await versionOf(alone, schema);
  const current = migrations(schema).length;
  if (version !== null && version > current) throw new CodedError('STORE_SCHEMA_NEWER');
  if (version !== current) throw new CodedError('STORE_SCHEMA_OLD');
}

/**
 * Makes or changes our tables; several at once do it once. Tells whether something was to be done.
 * @throws CodedError STORE_SCHEMA_NEWER
 */
export function migrate(database: PostgresDatabase): Promise<boolean> {
  const { schema } = database;
  return database.transaction(async (sql) => {
    await sql.all('SELECT pg_advisory_xact_lock(hashtext($1))', `${schema}.migrate`);
    const version = await versionOf(sql, schema);
    const steps = migrations(schema);
    if (version !== null && version > steps.length) throw new CodedError('STORE_SCHEMA_NEWER');
    if (version === steps.length) return false;
    const first = `CREATE SCHEMA IF NOT EXISTS ${schema}; CREATE TABLE ${schema}.version (version INTEGER NOT NULL);
      INSERT INTO ${schema}.version VALUES (0);`;
    // Without values, so that there may be several statements.
    await sql.db.executeSql([...(version === null ? [first] : []), ...steps.slice(version ?? 0)].join('\n'));
    await sql.all(`UPDATE ${schema}.version SET version = $1`, steps.length);
    return true;
  });
}
