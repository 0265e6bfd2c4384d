/**
 * The job store on SQLite (libsql), in the data folder.
 *
 * The database is opened in exclusive locking mode: the lock that the kernel drops with the process is also what keeps a
 * second supervisor off the folder.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Job, JobRequest, JobStatus } from '@qwen-supervisor/protocol/job';
import type { JobOutcome } from '@qwen-supervisor/protocol/messages';
import Database from 'libsql';
import { type JobStore, OUTSIDE_DEATHS_MAX, OWN_DEATHS_MAX } from './job-store.js';

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS jobs (
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
  CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, position);
  CREATE INDEX IF NOT EXISTS jobs_by_image ON jobs (image ->> 'id');
`;

const POISONED = `(own_deaths >= ${OWN_DEATHS_MAX} OR outside_deaths >= ${OUTSIDE_DEATHS_MAX})`;

interface Row {
  id: string;
  status: JobStatus;
  request: string;
  step: number;
  attempts: number;
  image: string | null;
  error: string | null;
  created_at: string;
}

/** Shape of the column `image`. */
interface StoredImage {
  id: string;
  file: string;
  sha256: string;
}

/** @throws CodedError ALREADY_RUNNING, JOB_STORE_UNUSABLE */
export function openSqliteJobStore(dataDir: string): JobStore {
  const file = join(dataDir, 'jobs.db');
  const db = open(file);
  const one = (sql: string, ...values: unknown[]) => db.prepare(sql).get(...values) as Row | undefined;
  const toJobOrNull = (row: Row | undefined) => (row ? toJob(row) : null);

  return {
    async put(request) {
      const sql = `INSERT INTO jobs (id, status, request, created_at) VALUES (?, 'queued', ?, ?) RETURNING *`;
      const row = one(sql, `job_${randomBytes(12).toString('hex')}`, JSON.stringify(request), new Date().toISOString());
      return toJob(row as Row);
    },
    async claim() {
      const sql = `UPDATE jobs SET status = 'running', attempts = attempts + 1 WHERE position =
        (SELECT position FROM jobs WHERE status = 'queued' ORDER BY position LIMIT 1) RETURNING *`;
      return toJobOrNull(one(sql));
    },
    async release(id, death) {
      const counted = `UPDATE jobs SET
        own_deaths = own_deaths + (?1 = 'own'),
        outside_deaths = CASE ?1 WHEN 'outside' THEN outside_deaths + 1 WHEN 'none' THEN outside_deaths ELSE 0 END
        WHERE id = ?2 AND status = 'running'`;
      const moved = `UPDATE jobs SET
        status = CASE WHEN cancel_requested THEN 'cancelled' WHEN ${POISONED} THEN 'failed' ELSE 'queued' END,
        error = CASE WHEN NOT cancel_requested AND ${POISONED} THEN ?1 ELSE NULL END
        WHERE id = ?2 AND status = 'running' RETURNING *`;
      return db.transaction(() => {
        db.prepare(counted).run(death, id);
        return toJobOrNull(one(moved, JSON.stringify(new CodedError('JOB_POISONED').toObject()), id));
      })();
    },
    async finish(id, attempt, step, outcome) {
      const sql = `UPDATE jobs SET status = ?, step = ?, image = ?, error = ?
        WHERE id = ? AND attempts = ? AND status = 'running' RETURNING *`;
      return toJobOrNull(one(sql, outcome.status, step, imageOf(outcome), errorOf(outcome), id, attempt));
    },
    async cancel(id) {
      const sql = `UPDATE jobs SET cancel_requested = 1, status = CASE status WHEN 'queued' THEN 'cancelled' ELSE status END
        WHERE id = ? AND status IN ('queued', 'running')`;
      db.prepare(sql).run(id);
      return toJobOrNull(one('SELECT * FROM jobs WHERE id = ?', id));
    },
    async get(id) {
      return toJobOrNull(one('SELECT * FROM jobs WHERE id = ?', id));
    },
    async list({ status, limit }) {
      const sql = 'SELECT * FROM jobs WHERE ?1 IS NULL OR status = ?1 ORDER BY position DESC LIMIT ?2';
      return (db.prepare(sql).all(status, limit) as Row[]).map(toJob);
    },
    async findImage(id) {
      const row = one(`SELECT * FROM jobs WHERE image ->> 'id' = ?`, id);
      if (!row?.image) return null;
      const { file, sha256 } = JSON.parse(row.image) as StoredImage;
      return { file, sha256 };
    },
    async counts() {
      const sql = `SELECT count(*) FILTER (WHERE status = 'queued') AS queued, count(*) FILTER (WHERE status = 'running') AS running
        FROM jobs WHERE status IN ('queued', 'running')`;
      const { queued, running } = db.prepare(sql).get() as { queued: number; running: number };
      return { queued, running };
    },
    async recover() {
      const sql = `UPDATE jobs SET status = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'queued' END
        WHERE status = 'running' RETURNING *`;
      return (db.prepare(sql).all() as Row[]).map(toJob);
    },
    async close() {
      // libsql closes the file when the last statement is collected; the lock must not wait for that.
      db.exec('PRAGMA journal_mode = DELETE; PRAGMA locking_mode = NORMAL; SELECT count(*) FROM jobs;');
      db.close();
    },
  };
}

function open(file: string): Database.Database {
  let db: Database.Database | undefined;
  try {
    db = new Database(file);
    db.exec(
      'PRAGMA busy_timeout = 0; PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;',
    );
    // The lock is taken by the first write, not by the pragma.
    db.exec('BEGIN EXCLUSIVE; COMMIT;');
    db.exec(SCHEMA);
    return db;
  } catch (cause) {
    db?.close();
    const { code, message } = cause as { code?: string; message: string };
    if (code?.startsWith('SQLITE_BUSY') || /database is locked/.test(message)) {
      throw new CodedError('ALREADY_RUNNING', undefined, { cause });
    }
    throw new CodedError('JOB_STORE_UNUSABLE', `${file}: ${message}`, { cause });
  }
}

function toJob(row: Row): Job {
  const request = JSON.parse(row.request) as JobRequest;
  const image = row.image === null ? null : (JSON.parse(row.image) as StoredImage);
  return {
    id: row.id,
    status: row.status,
    ...request,
    step: row.step,
    steps: request.numInferenceSteps,
    attempts: row.attempts,
    images: image ? [{ id: image.id, url: `/api/v1/images/${image.id}`, sha256: image.sha256 }] : [],
    error: row.error === null ? null : JSON.parse(row.error),
    createdAt: row.created_at,
  };
}

function imageOf(outcome: JobOutcome): string | null {
  if (outcome.status !== 'done') return null;
  return JSON.stringify({ id: outcome.imageId, file: outcome.file, sha256: outcome.sha256 } satisfies StoredImage);
}

function errorOf(outcome: JobOutcome): string | null {
  return outcome.status === 'failed' ? JSON.stringify(outcome.error) : null;
}
