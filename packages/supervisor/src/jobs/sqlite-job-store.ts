/**
 * The job store on SQLite (libsql), in the data folder. The file itself is opened by sqlite-database.ts.
 */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Job, JobOrder } from '@qwen-supervisor/protocol/job';
import { requestOf, workOf } from '@qwen-supervisor/protocol/job-request';
import type Database from 'libsql';
import type { Death } from '../core/attempt.js';
import { errorOf, imageOf, newId, type Row, toJob } from './job-row.js';
import { afterDeath, type JobStore, requireRoom, type Waiting } from './job-store.js';
import { sqlitePictures } from './sqlite-pictures.js';
import { SqliteStatements } from './sqlite-statements.js';

/**
 * The order in which jobs are claimed. `rank` is the place among those of one priority: that of arrival, until one is
 * moved.
 */
const IN_TURN = 'priority DESC, rank';

export function sqliteJobStore(db: Database.Database): JobStore {
  const statements = new SqliteStatements(db);
  const prepare = (sql: string) => statements.prepare(sql);
  const transaction = <T>(operation: () => T) => statements.transaction(operation);
  const one = (sql: string, ...values: unknown[]) => prepare(sql).get(...values) as Row | undefined;
  const all = (sql: string, ...values: unknown[]) => prepare(sql).all(...values) as Row[];
  const pictures = sqlitePictures(statements);
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
  const toJobOrNull = (row: Row | undefined) => (row ? toJob(row) : null);
  const now = () => new Date().toISOString();
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
    ...pictures.operations,
    async put(orders, idempotency, maxQueued, maxPerOwner) {
      return transaction(() => {
        const { key, fingerprint } = idempotency ?? { key: null, fingerprint: null };
        const known = key === null ? [] : all('SELECT * FROM jobs WHERE idempotency_key = ? ORDER BY position', key);
        if (known.some((row) => row.fingerprint !== fingerprint)) throw new CodedError('IDEMPOTENCY_KEY_REUSED');
        if (known.length > 0) return { jobs: known.map(toJob), replayed: true };
        const owner = orders[0]?.owner ?? null;
        const { queued } = counts();
        // Nobody is nobody: without keys the queue alone has an end.
        const own = owner === null ? null : queuedOf(owner);
        requireRoom(orders.length, { queued, own }, { maxQueued, maxPerOwner });
        const group = orders.length > 1 ? newId('group') : null;
        return { jobs: orders.map((order) => insert(order, group, key, fingerprint)), replayed: false };
      });
    },
    async knows(key) {
      return one('SELECT * FROM jobs WHERE idempotency_key = ? LIMIT 1', key) !== undefined;
    },
    async claim({ maxPixels, leaves }) {
      const fits = `(?1 IS NULL OR (request ->> 'width') * (request ->> 'height') <= ?1)`;
      const isFree = `(step = 0 OR devices ->> '$[#-1]' IS NULL OR devices ->> '$[#-1]' NOT IN (SELECT value FROM json_each(?2)))`;
      const sql = `UPDATE jobs SET status = 'running', attempts = attempts + 1, resumed_at_step = NULL,
        started_over_reason = NULL
        WHERE position = (SELECT position FROM jobs
          WHERE status = 'queued' AND ${fits} AND ${isFree} ORDER BY ${IN_TURN} LIMIT 1)
        RETURNING *`;
      return write(sql, maxPixels, JSON.stringify(leaves));
    },
    async begin(id, attempt, { step, startedOverReason, device, model }, deviceReason = null) {
      const sql = `UPDATE jobs SET step = ?1, resumed_at_step = nullif(?1, 0), started_over_reason = ?2, model = ?6,
        device_reason = ?7,
        devices = CASE WHEN ?1 = 0 THEN json_array(?5) WHEN devices ->> '$[#-1]' = ?5 THEN devices
          ELSE json_insert(devices, '$[#]', ?5) END
        WHERE id = ?3 AND attempts = ?4 AND status = 'running' RETURNING *`;
      return write(sql, step, startedOverReason, id, attempt, device, model, deviceReason);
    },
    async release(id, attempt, death, step) {
      return transaction(() => {
        const isRunning = one('SELECT * FROM jobs WHERE id = ? AND attempts = ?', id, attempt) !== undefined;
        return isRunning ? release(id, death, step) : null;
      });
    },
    async finish(id, attempt, step, outcome) {
      const sql = `UPDATE jobs SET status = ?, step = ?, image = ?, error = ?, finished_at = ?
        WHERE id = ? AND attempts = ? AND status = 'running' RETURNING *`;
      const job = write(sql, outcome.status, step, imageOf(outcome), errorOf(outcome), now(), id, attempt);
      if (job && outcome.status === 'done') pictures.added(outcome.bytes);
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
    async list({ status, source, group, ids }, cursor, limit) {
      const given = Object.entries({ status, source, group_id: group }).filter(([, value]) => value !== null);
      const among = ids === null ? [] : ['id IN (SELECT value FROM json_each(?))'];
      const conditions = ['TRUE', ...given.map(([column]) => `${column} = ?`), ...among].join(' AND ');
      const values = [...given.map(([, value]) => value), ...(ids === null ? [] : [JSON.stringify(ids)])];
      const { rows, next } = statements.page<Row>(`SELECT * FROM jobs WHERE ${conditions}`, cursor, limit, ...values);
      return { jobs: rows.map(toJob), next };
    },
    async waiting(limit) {
      const sql = `SELECT id, work FROM jobs WHERE status = 'queued' ORDER BY ${IN_TURN} LIMIT ?`;
      return (prepare(sql).all(limit) as Waiting[]).map(({ id, work }) => ({ id, work }));
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
    async nowMs() {
      return Date.now();
    },
    async remove(ids) {
      const statement = prepare('DELETE FROM jobs WHERE id = ? AND finished_at IS NOT NULL');
      transaction(() => {
        for (const id of ids) statement.run(id);
      });
      pictures.forget();
    },
    machines: null,
    whenAway(error) {
      const { code, message } = error as { code?: string; message?: string };
      const isDisk = /^SQLITE_(FULL|IOERR)/.test(code ?? '') || /disk is full|disk I\/O error/.test(message ?? '');
      return isDisk ? 'DISK_FULL' : null;
    },
    async close() {
      // libsql closes the file when the last statement is collected; the lock must not wait for that.
      db.exec('PRAGMA journal_mode = DELETE; PRAGMA locking_mode = NORMAL; SELECT count(*) FROM jobs;');
      db.close();
    },
  };
}
