/**
 * The file of the job store: opened, locked, checked and brought to the current schema.
 *
 * The database is opened in exclusive locking mode: the lock that the kernel drops with the process is also what
 * keeps a second supervisor off the folder.
 */
import { existsSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import Database from 'libsql';
import type { JobStore } from './job-store.js';
import { sqliteJobStore } from './sqlite-job-store.js';

/** Each brings the schema one version further; `user_version` counts those that were run. */
const MIGRATIONS = [
  `CREATE TABLE IF NOT EXISTS jobs (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    request TEXT NOT NULL,
    step INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    own_deaths INTEGER NOT NULL DEFAULT 0,
    outside_deaths INTEGER NOT NULL DEFAULT 0,
    image TEXT,
    error TEXT,
    created_at TEXT NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS jobs_by_image ON jobs (image ->> 'id');`,
  `ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE jobs ADD COLUMN retry_of TEXT;
  ALTER TABLE jobs ADD COLUMN resumed_at_step INTEGER;
  ALTER TABLE jobs ADD COLUMN started_over_reason TEXT;
  ALTER TABLE jobs ADD COLUMN idempotency_key TEXT;
  ALTER TABLE jobs ADD COLUMN fingerprint TEXT;
  ALTER TABLE jobs ADD COLUMN finished_at TEXT;
  UPDATE jobs SET finished_at = created_at WHERE status IN ('done', 'failed', 'cancelled');
  DROP INDEX IF EXISTS jobs_by_status;
  CREATE INDEX jobs_in_turn ON jobs (status, priority DESC, position);
  CREATE INDEX jobs_by_key ON jobs (idempotency_key) WHERE idempotency_key IS NOT NULL;
  CREATE INDEX jobs_by_end ON jobs (finished_at) WHERE finished_at IS NOT NULL;`,
  `ALTER TABLE jobs ADD COLUMN source TEXT NOT NULL DEFAULT 'api';
  ALTER TABLE jobs ADD COLUMN group_id TEXT;
  ALTER TABLE jobs ADD COLUMN work REAL NOT NULL DEFAULT 0;
  ALTER TABLE jobs ADD COLUMN rank INTEGER NOT NULL DEFAULT 0;
  UPDATE jobs SET rank = position;
  UPDATE jobs SET work = coalesce((request ->> 'width') * (request ->> 'height') / 256.0 * (request ->> 'numInferenceSteps')
    * CASE WHEN request ->> 'trueCfgScale' > 1 THEN 2 ELSE 1 END, 0) WHERE status IN ('queued', 'running');
  DROP INDEX jobs_in_turn;
  CREATE INDEX jobs_in_turn ON jobs (status, priority DESC, rank);
  CREATE INDEX jobs_by_status ON jobs (status, position);
  CREATE INDEX jobs_by_source ON jobs (source, position);
  CREATE INDEX jobs_by_group ON jobs (group_id, position) WHERE group_id IS NOT NULL;
  CREATE INDEX jobs_by_input ON jobs (request ->> 'initImage') WHERE request ->> 'initImage' IS NOT NULL;`,
  `CREATE INDEX jobs_by_mask ON jobs (request ->> 'mask') WHERE request ->> 'mask' IS NOT NULL;
  ALTER TABLE jobs ADD COLUMN owner TEXT;
  CREATE INDEX jobs_by_owner ON jobs (owner) WHERE owner IS NOT NULL AND status = 'queued';`,
  `ALTER TABLE jobs ADD COLUMN devices TEXT NOT NULL DEFAULT '[]';`,
  `ALTER TABLE jobs ADD COLUMN model TEXT;
  ALTER TABLE jobs ADD COLUMN starred INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE jobs ADD COLUMN trashed_at TEXT;
  CREATE INDEX jobs_in_trash ON jobs (trashed_at) WHERE trashed_at IS NOT NULL;`,
  `ALTER TABLE jobs ADD COLUMN device_reason TEXT;`,
];

/** Of the schema that this program writes. */
export const DATABASE_VERSION = MIGRATIONS.length;

/** What SQLite leaves beside a database. */
const COMPANIONS = ['', '-wal', '-shm', '-journal'];

/**
 * Opens `jobs.db`. A file that is damaged is kept aside, under the name that is returned, and an empty one takes its
 * place: a queue that cannot be read must not keep the service down.
 * @throws CodedError ALREADY_RUNNING, JOB_STORE_UNUSABLE
 */
export function openSqliteJobStore(dataDir: string): { store: JobStore; setAside: string | null } {
  const file = join(dataDir, 'jobs.db');
  try {
    return { store: sqliteJobStore(openDatabase(file)), setAside: null };
  } catch (error) {
    if (!isDamage(error)) throw error;
    const aside = `${file}.damaged-${new Date().toISOString().replaceAll(':', '-')}`;
    for (const suffix of COMPANIONS) {
      if (existsSync(file + suffix)) renameSync(file + suffix, aside + suffix);
    }
    return { store: sqliteJobStore(openDatabase(file)), setAside: aside };
  }
}

/**
 * Opens, locks, checks and migrates; `:memory:` is a database too. @throws CodedError ALREADY_RUNNING,
 * JOB_STORE_UNUSABLE
 */
export function openDatabase(file: string): Database.Database {
  let db: Database.Database | undefined;
  try {
    db = new Database(file);
    db.exec(
      'PRAGMA busy_timeout = 0; PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;',
    );
    // The lock is taken by the first write, not by the pragma.
    db.exec('BEGIN EXCLUSIVE; COMMIT;');
    const { quick_check: verdict } = db.prepare('PRAGMA quick_check(1)').get() as { quick_check: string };
    if (verdict !== 'ok') throw Object.assign(new Error(verdict), { code: 'SQLITE_CORRUPT' });
    migrate(db);
    return db;
  } catch (cause) {
    db?.close();
    if (cause instanceof CodedError) throw cause;
    const { code, message } = cause as { code?: string; message: string };
    if (code?.startsWith('SQLITE_BUSY') || /database is locked/.test(message)) {
      throw new CodedError('ALREADY_RUNNING', undefined, { cause });
    }
    throw new CodedError('JOB_STORE_UNUSABLE', `${file}: ${message}`, { cause });
  }
}

function migrate(db: Database.Database): void {
  const { user_version: version } = db.prepare('PRAGMA user_version').get() as { user_version: number };
  if (version > MIGRATIONS.length) {
    throw new CodedError(
      'JOB_STORE_UNUSABLE',
      'jobs.db was written by a newer version of qwen-supervisor: install that again; it is not changed by this one',
    );
  }
  // Nothing is written where nothing changes: a start must work on a full disk.
  if (version === MIGRATIONS.length) return;
  const steps = MIGRATIONS.slice(version).join('\n');
  db.exec(`BEGIN; ${steps} PRAGMA user_version = ${MIGRATIONS.length}; COMMIT;`);
}

function isDamage(error: unknown): boolean {
  const { code, message = '' } = ((error as Error).cause ?? {}) as { code?: string; message?: string };
  return /^SQLITE_(NOTADB|CORRUPT)/.test(code ?? '') || /not a database|malformed/.test(message);
}
