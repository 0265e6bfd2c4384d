/**
 * The job store on SQLite (libsql), in the data folder. The file itself is opened by sqlite-database.ts.
 */
import { randomBytes } from 'node:crypto';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Job, JobOrder, JobSource, JobStatus } from '@qwen-supervisor/protocol/job';
import { type JobRequest, requestOf, stepsOf, workOf } from '@qwen-supervisor/protocol/job-request';
import type { JobOutcome } from '@qwen-supervisor/protocol/messages';
import type Database from 'libsql';
import type { Death } from '../core/attempt.js';
import { afterDeath, type Expired, type JobStore, type Waiting } from './job-store.js';

/** Pictures that are looked at together for what is to be removed. */
const LOOKED_AT_ONCE = 100;
/** Of the requests of one page. */
const PAGE_CHARACTERS = 1 << 20;
/** Newest pictures that are kept whatever their size. */
const NEVER_TOO_LARGE = 10;

/**
 * The order in which jobs are claimed. `rank` is the place among those of one priority: that of arrival, until one is
 * moved.
 */
const IN_TURN = 'priority DESC, rank';

interface Row {
  /** Counts the jobs as they arrive. */
  position: number;
  id: string;
  status: JobStatus;
  request: string;
  priority: number;
  source: JobSource;
  group_id: string | null;
  retry_of: string | null;
  step: number;
  attempts: number;
  cancel_requested: number;
  own_deaths: number;
  outside_deaths: number;
  resumed_at_step: number | null;
  started_over_reason: string | null;
  devices: string;
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
  /**
   * Prepared once: a statement costs more than most queries, and its memory is given back only by the garbage
   * collector.
   */
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
  const queuedOf = (owner: string) => {
    const sql = `SELECT count(*) AS count FROM jobs WHERE status = 'queued' AND owner = ?`;
    return (prepare(sql).get(owner) as { count: number }).count;
  };
  /** Of all pictures: summed up when it is first asked for and after removals, else kept up to date. */
  let known: { bytes: number; pictures: number } | null = null;
  const kept = () => {
    const sql = `SELECT coalesce(sum(image ->> 'bytes'), 0) AS bytes, count(*) AS pictures FROM jobs
      WHERE finished_at IS NOT NULL AND image IS NOT NULL`;
    if (!known) {
      const { bytes, pictures } = prepare(sql).get() as { bytes: number; pictures: number };
      known = { bytes, pictures };
    }
    return known;
  };
  const toJobOrNull = (row: Row | undefined) => (row ? toJob(row) : null);
  const now = () => new Date().toISOString();
  /**
   * Every write goes through here: a single statement with RETURNING gives its row before it is committed, and libsql
   * keeps to itself that the commit failed.
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

  const insert = (order: JobOrder, group: string | null, key: string | null, fingerprint: string | null) => {
    const sql = `INSERT INTO jobs (id, status, request, priority, source, group_id, retry_of, work, idempotency_key,
        fingerprint, created_at, owner, rank)
      VALUES (?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, coalesce((SELECT seq + 1 FROM sqlite_sequence WHERE name = 'jobs'), 1))
      RETURNING *`;
    const { request, priority, source, retryOf, owner } = order;
    const [id, json, work] = [newId('job'), JSON.stringify(requestOf(request)), workOf(request)];
    return toJob(one(sql, id, json, priority, source, group, retryOf, work, key, fingerprint, now(), owner) as Row);
  };

  /** One page of what `sql` selects (it ends in its conditions); rows have their `position`. */
  const page = <R extends { position: number; request?: string }>(
    sql: string,
    cursor: number | null,
    limit: number,
    ...values: unknown[]
  ) => {
    const before = cursor === null ? '' : 'AND position < ?';
    const bounds = cursor === null ? [limit + 1] : [cursor, limit + 1];
    const rows = prepare(`${sql} ${before} ORDER BY position DESC LIMIT ?`).all(...values, ...bounds) as R[];
    // Prompts may be long: a page has as many jobs as go into one message with ease, and one at least.
    let characters = 0;
    const fitting = rows.findIndex(({ request = '' }) => {
      characters += request.length;
      return characters > PAGE_CHARACTERS;
    });
    const shown = rows.slice(0, fitting < 0 ? limit : Math.min(limit, Math.max(1, fitting)));
    return { rows: shown, next: rows.length > shown.length ? (shown.at(-1) as R).position : null };
  };

  const release = (id: string, death: Death, step: number) => {
    const known = one(`SELECT * FROM jobs WHERE id = ? AND status = 'running'`, id);
    if (!known) return null;
    const { ownDeaths, outsideDeaths, status } = afterDeath(known, death);
    const error = status === 'failed' ? JSON.stringify(new CodedError('JOB_POISONED').toObject()) : null;
    const sql = `UPDATE jobs SET own_deaths = ?, outside_deaths = ?, step = ?, status = ?, error = ?, finished_at = ?
      WHERE id = ? RETURNING *`;
    const finishedAt = status === 'queued' ? null : now();
    return toJobOrNull(one(sql, ownDeaths, outsideDeaths, step, status, error, finishedAt, id));
  };

  return {
    async put(orders, idempotency, maxQueued, maxPerOwner) {
      return transaction(() => {
        const { key, fingerprint } = idempotency ?? { key: null, fingerprint: null };
        const known = key === null ? [] : all('SELECT * FROM jobs WHERE idempotency_key = ? ORDER BY position', key);
        if (known.some((row) => row.fingerprint !== fingerprint)) throw new CodedError('IDEMPOTENCY_KEY_REUSED');
        if (known.length > 0) return { jobs: known.map(toJob), replayed: true };
        const { queued } = counts();
        if (queued + orders.length > maxQueued) {
          throw new CodedError('QUEUE_FULL', `${queued} jobs are waiting, and the queue holds ${maxQueued}`);
        }
        const owner = orders[0]?.owner ?? null;
        const own = owner === null ? 0 : queuedOf(owner);
        if (own + orders.length > maxPerOwner && owner !== null) {
          throw new CodedError(
            'QUEUE_FULL',
            `${own} jobs of this key are waiting, and one key may have ${maxPerOwner}`,
          );
        }
        const group = orders.length > 1 ? newId('group') : null;
        return { jobs: orders.map((order) => insert(order, group, key, fingerprint)), replayed: false };
      });
    },
    async knows(key) {
      return one('SELECT * FROM jobs WHERE idempotency_key = ? LIMIT 1', key) !== undefined;
    },
    async claim() {
      const sql = `UPDATE jobs SET status = 'running', attempts = attempts + 1, resumed_at_step = NULL,
        started_over_reason = NULL
        WHERE position = (SELECT position FROM jobs WHERE status = 'queued' ORDER BY ${IN_TURN} LIMIT 1)
        RETURNING *`;
      return write(sql);
    },
    async begin(id, attempt, { step, startedOverReason, device }) {
      const sql = `UPDATE jobs SET step = ?1, resumed_at_step = nullif(?1, 0), started_over_reason = ?2,
        devices = CASE WHEN ?1 = 0 THEN json_array(?5) WHEN devices ->> '$[#-1]' = ?5 THEN devices
          ELSE json_insert(devices, '$[#]', ?5) END
        WHERE id = ?3 AND attempts = ?4 AND status = 'running' RETURNING *`;
      return write(sql, step, startedOverReason, id, attempt, device);
    },
    async release(id, death, step) {
      return transaction(() => release(id, death, step));
    },
    async finish(id, attempt, step, outcome) {
      const sql = `UPDATE jobs SET status = ?, step = ?, image = ?, error = ?, finished_at = ?
        WHERE id = ? AND attempts = ? AND status = 'running' RETURNING *`;
      const job = write(sql, outcome.status, step, imageOf(outcome), errorOf(outcome), now(), id, attempt);
      if (job && known && outcome.status === 'done')
        known = { bytes: known.bytes + outcome.bytes, pictures: known.pictures + 1 };
      return job;
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
    async cancelQueued(group) {
      const sql = `UPDATE jobs SET status = 'cancelled', finished_at = ? WHERE status = 'queued'`;
      return transaction(() => {
        const rows =
          group === null ? all(`${sql} RETURNING *`, now()) : all(`${sql} AND group_id = ? RETURNING *`, now(), group);
        return rows.map(toJob);
      });
    },
    async move(id, place) {
      const queued = `SELECT * FROM jobs WHERE id = ? AND status = 'queued'`;
      // Ranks are whole again afterwards, and those of later arrivals, which count all jobs ever, are still greater.
      const renumber = `UPDATE jobs SET rank = numbered.place FROM (
          SELECT position AS at, row_number() OVER (ORDER BY ${IN_TURN}, position) AS place
          FROM jobs WHERE status IN ('queued', 'running')) AS numbered
        WHERE position = numbered.at`;
      return transaction(() => {
        if (!one(queued, id)) return null;
        if ('before' in place) {
          const other = one(queued, place.before);
          if (!other) return null;
          // Twice as fine, so that there is room before the other one.
          prepare(`UPDATE jobs SET rank = 2 * rank WHERE status IN ('queued', 'running')`).run();
          const put = `UPDATE jobs SET priority = ?1, rank = (SELECT rank - 1 FROM jobs WHERE id = ?2) WHERE id = ?3`;
          prepare(put).run(other.priority, place.before, id);
        } else {
          const last = `SELECT coalesce(max(rank), 0) + 1 FROM jobs WHERE status IN ('queued', 'running')`;
          prepare(`UPDATE jobs SET priority = ?1, rank = (${last}) WHERE id = ?2`).run(place.priority, id);
        }
        prepare(renumber).run();
        return toJobOrNull(one(queued, id));
      });
    },
    async list({ status, source, group }, cursor, limit) {
      const given = Object.entries({ status, source, group_id: group }).filter(([, value]) => value !== null);
      const conditions = ['TRUE', ...given.map(([column]) => `${column} = ?`)].join(' AND ');
      const values = given.map(([, value]) => value);
      const { rows, next } = page<Row>(`SELECT * FROM jobs WHERE ${conditions}`, cursor, limit, ...values);
      return { jobs: rows.map(toJob), next };
    },
    async waiting(limit) {
      const sql = `SELECT id, work FROM jobs WHERE status = 'queued' ORDER BY ${IN_TURN} LIMIT ?`;
      return (prepare(sql).all(limit) as Waiting[]).map(({ id, work }) => ({ id, work }));
    },
    async pictures(cursor, limit) {
      const sql = `SELECT position, image ->> 'id' AS id, request ->> 'width' AS width, request ->> 'height' AS height,
        finished_at FROM jobs WHERE status = 'done'`;
      type Entry = { position: number; id: string; width: number; height: number; finished_at: string };
      const { rows, next } = page<Entry>(sql, cursor, limit);
      return { pictures: rows.map((row) => [row.id, row.width, row.height, Date.parse(row.finished_at)]), next };
    },
    async inputs() {
      const sql = ['initImage', 'mask']
        .map((key) => `SELECT request ->> '${key}' AS input FROM jobs WHERE request ->> '${key}' IS NOT NULL`)
        .join(' UNION ');
      return new Set((prepare(sql).all() as { input: string }[]).map(({ input }) => input));
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
      const old = `SELECT id, image ->> 'file' AS file FROM jobs WHERE finished_at < ? ORDER BY finished_at`;
      const tooOld = finishedBefore === null ? [] : (prepare(old).all(finishedBefore) as Expired[]);
      const expired = new Map(tooOld.map(({ id, file }) => [id, { id, file }]));
      if (keepBytes === null) return [...expired.values()];
      // From the oldest on, until the rest is small enough: what is kept is not read, however much it is.
      let { bytes, pictures } = kept();
      const oldest = `SELECT id, image ->> 'file' AS file, image ->> 'bytes' AS bytes FROM jobs
        WHERE finished_at IS NOT NULL AND image IS NOT NULL ORDER BY finished_at, position LIMIT ? OFFSET ?`;
      // In pages: a statement that is left in the middle keeps the database open for reading.
      for (let offset = 0; ; offset += LOOKED_AT_ONCE) {
        const rows = prepare(oldest).all(LOOKED_AT_ONCE, offset) as (Expired & { bytes: number })[];
        for (const row of rows) {
          if (bytes <= keepBytes || pictures <= NEVER_TOO_LARGE) return [...expired.values()];
          bytes -= row.bytes;
          pictures--;
          expired.set(row.id, { id: row.id, file: row.file });
        }
        if (rows.length < LOOKED_AT_ONCE) return [...expired.values()];
      }
    },
    async remove(ids) {
      const statement = prepare('DELETE FROM jobs WHERE id = ? AND finished_at IS NOT NULL');
      transaction(() => {
        for (const id of ids) statement.run(id);
      });
      known = null;
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
  const request = requestOf(JSON.parse(row.request) as JobRequest);
  const steps = stepsOf(request);
  const image = row.image === null ? null : (JSON.parse(row.image) as StoredImage);
  return {
    id: row.id,
    status: row.status,
    ...request,
    step: row.step,
    steps,
    progress: row.status === 'done' ? 1 : row.step / steps,
    attempts: row.attempts,
    priority: row.priority,
    position: null,
    eta: null,
    source: row.source,
    group: row.group_id,
    retryOf: row.retry_of,
    resumedAtStep: row.resumed_at_step,
    startedOverReason: row.started_over_reason,
    devices: JSON.parse(row.devices),
    images: image ? [{ id: image.id, url: `/api/v1/images/${image.id}`, sha256: image.sha256 }] : [],
    error: row.error === null ? null : JSON.parse(row.error),
    createdAt: row.created_at,
    finishedAt: row.finished_at,
  };
}

function newId(kind: 'job' | 'group'): string {
  return `${kind}_${randomBytes(12).toString('hex')}`;
}

function imageOf(outcome: JobOutcome): string | null {
  if (outcome.status !== 'done') return null;
  const { imageId: id, file, sha256, bytes } = outcome;
  return JSON.stringify({ id, file, sha256, bytes } satisfies StoredImage);
}

function errorOf(outcome: JobOutcome): string | null {
  return outcome.status === 'failed' ? JSON.stringify(outcome.error) : null;
}
