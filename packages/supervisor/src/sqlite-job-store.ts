/**
 * The job store on SQLite (libsql), in the data folder. The file itself is opened by sqlite-database.ts.
 */
import { randomBytes } from 'node:crypto';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Job, JobOrder, JobRequest, JobStatus } from '@qwen-supervisor/protocol/job';
import type { JobOutcome } from '@qwen-supervisor/protocol/messages';
import type Database from 'libsql';
import { type Death, type Expired, type JobStore, OUTSIDE_DEATHS_MAX, OWN_DEATHS_MAX } from './job-store.js';

const POISONED = `(own_deaths >= ${OWN_DEATHS_MAX} OR outside_deaths >= ${OUTSIDE_DEATHS_MAX})`;

/** Newest pictures that are kept whatever their size. */
const NEVER_TOO_LARGE = 10;

interface Row {
  id: string;
  status: JobStatus;
  request: string;
  priority: number;
  retry_of: string | null;
  step: number;
  attempts: number;
  resumed_at_step: number | null;
  started_over_reason: string | null;
  fingerprint: string | null;
  image: string | null;
  error: string | null;
  created_at: string;
  finished_at: string | null;
}

/** Shape of the column `image`. */
interface StoredImage {
  id: string;
  file: string;
  sha256: string;
  bytes: number;
}

export function sqliteJobStore(db: Database.Database): JobStore {
  const statements = new Map<string, Database.Statement>();
  /** Prepared once: a statement costs more than most queries, and its memory is given back only by the garbage collector. */
  const prepare = (sql: string): Database.Statement => {
    const known = statements.get(sql) ?? db.prepare(sql);
    statements.set(sql, known);
    return known;
  };
  const one = (sql: string, ...values: unknown[]) => prepare(sql).get(...values) as Row | undefined;
  const all = (sql: string, ...values: unknown[]) => prepare(sql).all(...values) as Row[];
  const counts = () => {
    const sql = `SELECT count(*) FILTER (WHERE status = 'queued') AS queued, count(*) FILTER (WHERE status = 'running') AS running
      FROM jobs WHERE status IN ('queued', 'running')`;
    const { queued, running } = prepare(sql).get() as { queued: number; running: number };
    return { queued, running };
  };
  const toJobOrNull = (row: Row | undefined) => (row ? toJob(row) : null);
  const now = () => new Date().toISOString();
  /**
   * Every write goes through here: a single statement with RETURNING gives its row before it is committed, and libsql keeps
   * to itself that the commit failed.
   */
  const transaction = <T>(operation: () => T): T => {
    db.exec('BEGIN IMMEDIATE');
    try {
      const result = operation();
      db.exec('COMMIT');
      return result;
    } catch (error) {
      // A full disk has ended the transaction already.
      if (db.inTransaction) db.exec('ROLLBACK');
      throw error;
    }
  };
  const write = (sql: string, ...values: unknown[]) => transaction(() => toJobOrNull(one(sql, ...values)));

  const insert = ({ request, priority, retryOf }: JobOrder, key: string | null, fingerprint: string | null) => {
    const sql = `INSERT INTO jobs (id, status, request, priority, retry_of, idempotency_key, fingerprint, created_at)
      VALUES (?, 'queued', ?, ?, ?, ?, ?, ?) RETURNING *`;
    const id = `job_${randomBytes(12).toString('hex')}`;
    return toJob(one(sql, id, JSON.stringify(request), priority, retryOf, key, fingerprint, now()) as Row);
  };

  const release = (id: string, death: Death, step: number) => {
    const counted = `UPDATE jobs SET
      own_deaths = own_deaths + (?1 = 'own'),
      outside_deaths = CASE ?1 WHEN 'outside' THEN outside_deaths + 1 WHEN 'none' THEN outside_deaths ELSE 0 END,
      step = ?2
      WHERE id = ?3 AND status = 'running'`;
    const moved = `UPDATE jobs SET
      status = CASE WHEN cancel_requested THEN 'cancelled' WHEN ${POISONED} THEN 'failed' ELSE 'queued' END,
      error = CASE WHEN NOT cancel_requested AND ${POISONED} THEN ?1 ELSE NULL END,
      finished_at = CASE WHEN cancel_requested OR ${POISONED} THEN ?2 ELSE NULL END
      WHERE id = ?3 AND status = 'running' RETURNING *`;
    prepare(counted).run(death, step, id);
    return toJobOrNull(one(moved, JSON.stringify(new CodedError('JOB_POISONED').toObject()), now(), id));
  };

  return {
    async put(orders, idempotency, maxQueued) {
      return transaction(() => {
        const { key, fingerprint } = idempotency ?? { key: null, fingerprint: null };
        const known = key === null ? [] : all('SELECT * FROM jobs WHERE idempotency_key = ? ORDER BY position', key);
        if (known.some((row) => row.fingerprint !== fingerprint)) throw new CodedError('IDEMPOTENCY_KEY_REUSED');
        if (known.length > 0) return { jobs: known.map(toJob), replayed: true };
        const { queued } = counts();
        if (queued + orders.length > maxQueued) {
          throw new CodedError('QUEUE_FULL', `${queued} jobs are waiting, and the queue holds ${maxQueued}`);
        }
        return { jobs: orders.map((order) => insert(order, key, fingerprint)), replayed: false };
      });
    },
    async knows(key) {
      return one('SELECT * FROM jobs WHERE idempotency_key = ? LIMIT 1', key) !== undefined;
    },
    async claim() {
      const sql = `UPDATE jobs SET status = 'running', attempts = attempts + 1, resumed_at_step = NULL,
        started_over_reason = NULL
        WHERE position = (SELECT position FROM jobs WHERE status = 'queued' ORDER BY priority DESC, position LIMIT 1)
        RETURNING *`;
      return write(sql);
    },
    async begin(id, attempt, { step, startedOverReason }) {
      const sql = `UPDATE jobs SET step = ?1, resumed_at_step = nullif(?1, 0), started_over_reason = ?2
        WHERE id = ?3 AND attempts = ?4 AND status = 'running' RETURNING *`;
      return write(sql, step, startedOverReason, id, attempt);
    },
    async release(id, death, step) {
      return transaction(() => release(id, death, step));
    },
    async finish(id, attempt, step, outcome) {
      const sql = `UPDATE jobs SET status = ?, step = ?, image = ?, error = ?, finished_at = ?
        WHERE id = ? AND attempts = ? AND status = 'running' RETURNING *`;
      return write(sql, outcome.status, step, imageOf(outcome), errorOf(outcome), now(), id, attempt);
    },
    async cancel(id) {
      const sql = `UPDATE jobs SET cancel_requested = 1,
        finished_at = CASE status WHEN 'queued' THEN ?1 END,
        status = CASE status WHEN 'queued' THEN 'cancelled' ELSE status END
        WHERE id = ?2 AND status IN ('queued', 'running')`;
      return transaction(() => {
        prepare(sql).run(now(), id);
        return toJobOrNull(one('SELECT * FROM jobs WHERE id = ?', id));
      });
    },
    async get(id) {
      return toJobOrNull(one('SELECT * FROM jobs WHERE id = ?', id));
    },
    async list({ status, limit }) {
      return all(
        'SELECT * FROM jobs WHERE ?1 IS NULL OR status = ?1 ORDER BY position DESC LIMIT ?2',
        status,
        limit,
      ).map(toJob);
    },
    async findImage(id) {
      const row = one(`SELECT * FROM jobs WHERE image ->> 'id' = ?`, id);
      if (!row?.image) return null;
      const { file, sha256 } = JSON.parse(row.image) as StoredImage;
      return { file, sha256 };
    },
    async counts() {
      return counts();
    },
    async recover(completedSteps) {
      return transaction(() =>
        all(`SELECT * FROM jobs WHERE status = 'running'`).map((row) => {
          const step = Math.max(row.step, completedSteps(row.id));
          return release(row.id, step > row.step ? 'outside-after-progress' : 'outside', step) as Job;
        }),
      );
    },
    async expired({ finishedBefore, keepBytes }) {
      const sql = `SELECT id, image ->> 'file' AS file FROM (
          SELECT *, sum(image ->> 'bytes') OVER newest AS bytes_so_far, count(image) OVER newest AS images_so_far
          FROM jobs WHERE finished_at IS NOT NULL WINDOW newest AS (ORDER BY finished_at DESC, position DESC))
        WHERE finished_at < ?1 OR (image IS NOT NULL AND bytes_so_far > ?2 AND images_so_far > ${NEVER_TOO_LARGE})`;
      const rows = prepare(sql).all(finishedBefore, keepBytes) as Expired[];
      return rows.map(({ id, file }) => ({ id, file }));
    },
    async remove(ids) {
      const statement = prepare('DELETE FROM jobs WHERE id = ? AND finished_at IS NOT NULL');
      transaction(() => {
        for (const id of ids) statement.run(id);
      });
    },
    isTransient(error) {
      const { code, message } = error as { code?: string; message?: string };
      return /^SQLITE_(FULL|IOERR)/.test(code ?? '') || /disk is full|disk I\/O error/.test(message ?? '');
    },
    async close() {
      // libsql closes the file when the last statement is collected; the lock must not wait for that.
      db.exec('PRAGMA journal_mode = DELETE; PRAGMA locking_mode = NORMAL; SELECT count(*) FROM jobs;');
      db.close();
    },
  };
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
    priority: row.priority,
    retryOf: row.retry_of,
    resumedAtStep: row.resumed_at_step,
    startedOverReason: row.started_over_reason,
    images: image ? [{ id: image.id, url: `/api/v1/images/${image.id}`, sha256: image.sha256 }] : [],
    error: row.error === null ? null : JSON.parse(row.error),
    createdAt: row.created_at,
    finishedAt: row.finished_at,
  };
}

function imageOf(outcome: JobOutcome): string | null {
  if (outcome.status !== 'done') return null;
  const { imageId: id, file, sha256, bytes } = outcome;
  return JSON.stringify({ id, file, sha256, bytes } satisfies StoredImage);
}

function errorOf(outcome: JobOutcome): string | null {
  return outcome.status === 'failed' ? JSON.stringify(outcome.error) : null;
}
