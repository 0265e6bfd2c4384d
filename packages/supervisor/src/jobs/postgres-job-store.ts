/**
 * The job store that several machines share, on PostgreSQL. A row in our table is what a job is, and is changed only by
 * whoever holds its lock; pg-boss tells who holds which job, and takes it from holders that are silent. Locks are taken
 * in one order: our row first, then the engine's.
 */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { JobOrder, JobProgress } from '@qwen-supervisor/protocol/job';
import { requestOf, workOf } from '@qwen-supervisor/protocol/job-request';
import type { Death } from '../core/attempt.js';
import { errorOf, imageOf, newId, type Row, toJob } from './job-row.js';
import { afterDeath, type Expired, type JobStore, requireRoom, type Waiting } from './job-store.js';
import { type ClaimHooks, type JobNews, PostgresClaims } from './postgres-claims.js';
import { CommitUnknown, type PostgresDatabase, type Sql, whyAway } from './postgres-database.js';
import type { PostgresEngine } from './postgres-engine.js';
import { PostgresMachines } from './postgres-machines.js';
import { PostgresNotices } from './postgres-notices.js';
import { postgresPage, postgresPictures } from './postgres-pictures.js';

const CLOSE_LIMIT_MS = 3000;
/** The order in which jobs are claimed, as in the other store. */
const IN_TURN = 'priority DESC, rank';

/** What this store knows of a row beside the other one. */
interface SharedRow extends Row {
  entry: string;
  retry_count: number;
}

export interface PostgresParts {
  database: PostgresDatabase;
  engine: PostgresEngine;
  hooks: ClaimHooks;
  /** Of this supervisor, over its restarts: what it held before is its own to put back. */
  host: string;
}

/** Begins to look after its claims; the schema must be current. */
export async function postgresJobStore({ database, engine, hooks, host }: PostgresParts): Promise<JobStore> {
  const { schema } = database;
  const jobs = `${schema}.jobs`;
  const now = `${schema}.now_text()`;
  const alone = () => database.alone;
  const toJobOrNull = (row: Row | undefined | null) => (row ? toJob(row) : null);
  /** Attempts whose end was written by a transaction that nobody has heard the end of. */
  const unsure = new Set<string>();

  /** Where it is not known what has become of it, whoever listens here asks anew. */
  const transaction = async <T>(operation: (sql: Sql) => Promise<T>): Promise<T> => {
    try {
      return await database.transaction(operation);
    } catch (error) {
      if (error instanceof CommitUnknown) hooks.onMissed();
      throw error;
    }
  };
  const machines = new PostgresMachines(database, host);
  const notices = new PostgresNotices(database, hooks);
  const tellMachines = () => notices.tell(alone(), { type: 'machines' });
  const claims = new PostgresClaims({ database, engine, machines, hooks, reconcile, tellMachines });
  const pictures = postgresPictures(database, notices);

  const tellJobs = (sql: Sql, rows: Row[], news: JobNews) =>
    notices.tellJobs(
      sql,
      rows.map(({ id }) => id),
      news,
    );
  /** Those that add to the queue or change its order come one after the other. */
  const lockQueue = (sql: Sql) => sql.all('SELECT pg_advisory_xact_lock(hashtext($1))', `${schema}_jobs`);
  const counts = async (sql: Sql) => {
    const query = `SELECT count(*) FILTER (WHERE status = 'queued')::int AS queued,
      count(*) FILTER (WHERE status = 'running')::int AS running FROM ${jobs} WHERE status IN ('queued', 'running')`;
    return (await sql.one<{ queued: number; running: number }>(query)) as { queued: number; running: number };
  };

  const queuedOf = async (sql: Sql, owner: string) => {
    const query = `SELECT count(*)::int AS count FROM ${jobs} WHERE status = 'queued' AND owner = $1`;
    return ((await sql.one<{ count: number }>(query, owner)) as { count: number }).count;
  };

  /** A transaction that ends an attempt, or gives it up. Told again where the answer to its commit was lost. */
  async function settle(
    id: string,
    attempt: number,
    operation: (sql: Sql) => Promise<Row | null>,
  ): Promise<Row | null> {
    const key = `${id} ${attempt}`;
    try {
      const row = await transaction(operation);
      claims.gave(id, attempt);
      const wasUnsure = unsure.delete(key);
      if (row || !wasUnsure) return row;
      const ended = `SELECT * FROM ${jobs} WHERE id = $1 AND attempts = $2 AND status <> 'running'`;
      return (await alone().one<Row>(ended, id, attempt)) ?? null;
    } catch (error) {
      if (error instanceof CommitUnknown) unsure.add(key);
      throw error;
    }
  }

  async function insert(
    sql: Sql,
    order: JobOrder,
    group: string | null,
    key: string | null,
    fingerprint: string | null,
  ): Promise<Row> {
    const { request, priority, source, retryOf, owner } = order;
    const [ticket] = await sql.all<{ position: number }>(
      `SELECT nextval(pg_get_serial_sequence($1, 'position'))::int AS position`,
      jobs,
    );
    const { position } = ticket as { position: number };
    const [entry] = await engine.enter(sql, [position]);
    const query = `INSERT INTO ${jobs} (position, id, status, request, priority, rank, source, group_id, retry_of, work,
        idempotency_key, fingerprint, owner, entry, width, height, prompt, init_image, mask, created_at)
      OVERRIDING SYSTEM VALUE
      VALUES ($1, $2, 'queued', $3, $4, $1, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, ${now})
      RETURNING *`;
    const json = JSON.stringify(requestOf(request));
    const { width, height, prompt, initImage, mask } = request;
    const values = [priority, source, group, retryOf, workOf(request), key, fingerprint, owner, entry];
    const asked = [width, height, prompt, initImage, mask];
    return (await sql.one<Row>(query, position, newId('job'), json, ...values, ...asked)) as Row;
  }

  /** Puts what nobody holds any more back into the queue, or to its end. */
  async function putBack(sql: Sql, row: SharedRow, death: Death, step: number): Promise<Row> {
    const { ownDeaths, outsideDeaths, status } = afterDeath(row, death);
    const error = status === 'failed' ? JSON.stringify(new CodedError('JOB_POISONED').toObject()) : null;
    const claim = { id: row.entry, retryCount: row.retry_count };
    if (status !== 'queued') {
      if (!(await engine.complete(sql, claim))) await engine.remove(sql, [row.entry]);
    } else if (!(await engine.giveBack(sql, claim, death)) && !(await engine.isWaiting(sql, row.entry))) {
      const [entry] = await engine.enter(sql, [row.position]);
      await sql.all(`UPDATE ${jobs} SET entry = $1 WHERE id = $2`, entry, row.id);
    }
    const query = `UPDATE ${jobs} SET own_deaths = $1, outside_deaths = $2, step = $3, status = $4, error = $5, host = NULL,
      finished_at = CASE WHEN $4 = 'queued' THEN NULL ELSE ${now} END WHERE id = $6 RETURNING *`;
    const back = (await sql.one<Row>(query, ownDeaths, outsideDeaths, step, status, error, row.id)) as Row;
    await tellJobs(sql, [back], status === 'queued' ? 'requeued' : 'ended');
    return back;
  }

  /** What the engine has taken from a holder that was silent: the last step that was written down is what is known. */
  async function reconcile(): Promise<void> {
    const taken = await alone().all<SharedRow>(
      `SELECT * FROM ${jobs} WHERE status = 'running' AND NOT ${engine.holds('jobs')}`,
    );
    for (const { id, attempts, entry, retry_count: retryCount } of taken) {
      const back = await transaction(async (sql) => {
        const still = `SELECT * FROM ${jobs} WHERE id = $1 AND attempts = $2 AND status = 'running' FOR UPDATE`;
        const row = await sql.one<SharedRow>(still, id, attempts);
        const isLost = row && !(await engine.isHeld(sql, { id: entry, retryCount }));
        return isLost ? putBack(sql, row, 'outside', row.step) : null;
      });
      // The others hear it; nobody here has done it.
      if (back) hooks.onJobs([id], back.status === 'queued' ? 'requeued' : 'ended');
    }
  }

  await engine.warm();
  await notices.listen(() => claims.look().catch(() => 'it is looked again soon'));
  claims.start();

  return {
    ...pictures,
    async put(orders, idempotency, maxQueued, maxPerOwner) {
      return transaction(async (sql) => {
        await lockQueue(sql);
        const { key, fingerprint } = idempotency ?? { key: null, fingerprint: null };
        const query = `SELECT * FROM ${jobs} WHERE idempotency_key = $1 ORDER BY position`;
        const known = key === null ? [] : await sql.all<Row>(query, key);
        if (known.some((row) => row.fingerprint !== fingerprint)) throw new CodedError('IDEMPOTENCY_KEY_REUSED');
        if (known.length > 0) return { jobs: known.map(toJob), replayed: true };
        const owner = orders[0]?.owner ?? null;
        const { queued } = await counts(sql);
        const own = owner === null ? null : await queuedOf(sql, owner);
        requireRoom(orders.length, { queued, own }, { maxQueued, maxPerOwner });
        const group = orders.length > 1 ? newId('group') : null;
        const rows: Row[] = [];
        for (const order of orders) rows.push(await insert(sql, order, group, key, fingerprint));
        await tellJobs(sql, rows, 'queued');
        return { jobs: rows.map(toJob), replayed: false };
      });
    },
    async knows(key) {
      return (await alone().one(`SELECT 1 FROM ${jobs} WHERE idempotency_key = $1 LIMIT 1`, key)) !== undefined;
    },
    async claim({ maxPixels, leaves }) {
      const claimed = await transaction(async (sql) => {
        const next = `SELECT * FROM ${jobs} WHERE status = 'queued'
            AND NOT EXISTS (SELECT 1 FROM ${schema}.machines WHERE host = $3 AND is_drained) AND ($1::int IS NULL OR width * height <= $1)
            AND (step = 0 OR devices::jsonb ->> -1 IS NULL OR NOT devices::jsonb ->> -1 = ANY($2::text[]))
          ORDER BY ${IN_TURN} LIMIT 1 FOR UPDATE SKIP LOCKED`;
        const row = await sql.one<SharedRow>(next, maxPixels, leaves, host);
        const claim = row && (await engine.take(sql, row.position));
        if (!row) return null;
        if (!claim) {
          // Its entry may be in the hands of a sweep for a moment: it is looked again soon. One that is lost, or of
          // another time than our tables, as after a backup was brought back, is entered anew.
          if (await engine.isWaiting(sql, row.entry)) return null;
          await engine.remove(sql, [row.entry]);
          const [entry] = await engine.enter(sql, [row.position]);
          await sql.all(`UPDATE ${jobs} SET entry = $1 WHERE id = $2`, entry, row.id);
          return null;
        }
        const query = `UPDATE ${jobs} SET status = 'running', attempts = attempts + 1, resumed_at_step = NULL,
          started_over_reason = NULL, entry = $1, retry_count = $2, host = $3 WHERE id = $4 RETURNING *`;
        return { claim, row: (await sql.one<Row>(query, claim.id, claim.retryCount, host, row.id)) as Row };
      });
      if (!claimed) return null;
      claims.took(claimed.row.id, claimed.row.attempts, claimed.claim);
      return toJob(claimed.row);
    },
    async begin(id, attempt, { step, startedOverReason, device, model }, deviceReason = null) {
      const query = `UPDATE ${jobs} SET step = $1, resumed_at_step = nullif($1, 0),
        outside_deaths = CASE WHEN $1 > step THEN 0 ELSE outside_deaths END, started_over_reason = $2, model = $6,
        device_reason = $8,
        machine = (SELECT name FROM ${schema}.machines WHERE host = $7),
        devices = CASE WHEN $1 = 0 THEN jsonb_build_array($5::text) WHEN devices::jsonb ->> -1 = $5 THEN devices::jsonb
          ELSE devices::jsonb || to_jsonb($5::text) END::text
        WHERE id = $3 AND attempts = $4 AND status = 'running' RETURNING *`;
      const row = await alone().one<Row>(
        query,
        step,
        startedOverReason,
        id,
        attempt,
        device,
        model,
        host,
        deviceReason,
      );
      if (row) await tellJobs(alone(), [row], 'running');
      return toJobOrNull(row);
    },
    async release(id, attempt, death, step) {
      const query = `SELECT * FROM ${jobs} WHERE id = $1 AND status = 'running' AND attempts = $2 FOR UPDATE`;
      const row = await settle(id, attempt, async (sql) => {
        const known = await sql.one<SharedRow>(query, id, attempt);
        return known ? putBack(sql, known, death, step) : null;
      });
      return toJobOrNull(row);
    },
    async finish(id, attempt, step, outcome) {
      const query = `UPDATE ${jobs} SET status = $1, step = $2, image = $3, error = $4, finished_at = ${now}
        WHERE id = $5 AND attempts = $6 AND status = 'running' RETURNING *`;
      const values = [outcome.status, step, imageOf(outcome), errorOf(outcome), id, attempt];
      const row = await settle(id, attempt, async (sql) => {
        const ended = await sql.one<SharedRow>(query, ...values);
        if (!ended) return null;
        // One that was taken from us, and that nobody has taken up since, is ended all the same.
        const claim = { id: ended.entry, retryCount: ended.retry_count };
        const isOurs = await engine.complete(sql, claim);
        // The run of a job that was taken from us is cancelled here, which nobody has asked for.
        if (!isOurs && outcome.status === 'cancelled' && ended.cancel_requested === 0) throw new TakenFromUs();
        if (!isOurs) await engine.remove(sql, [ended.entry]);
        await tellJobs(sql, [ended], 'ended');
        return ended;
      }).catch((error: unknown) => {
        if (error instanceof TakenFromUs) return null;
        throw error;
      });
      return toJobOrNull(row);
    },
    async cancel(id, keep = false) {
      return transaction(async (sql) => {
        const row = await sql.one<SharedRow>(`SELECT * FROM ${jobs} WHERE id = $1 FOR UPDATE`, id);
        if (row?.status === 'queued') {
          await engine.remove(sql, [row.entry]);
          const query = `UPDATE ${jobs} SET cancel_requested = 1, status = 'cancelled', finished_at = ${now}
            WHERE id = $1 RETURNING *`;
          const cancelled = (await sql.one<Row>(query, id)) as Row;
          await tellJobs(sql, [cancelled], 'ended');
          return toJob(cancelled);
        }
        if (row?.status !== 'running') return toJobOrNull(row);
        await notices.tell(sql, { type: 'cancel', id, keep });
        const query = `UPDATE ${jobs} SET cancel_requested = 1, cancel_keeps = $1 WHERE id = $2 RETURNING *`;
        return toJobOrNull(await sql.one<Row>(query, keep, id));
      });
    },
    async cancelQueued(group) {
      return transaction(async (sql) => {
        const query = `UPDATE ${jobs} SET status = 'cancelled', finished_at = ${now} WHERE position IN (
            SELECT position FROM ${jobs} WHERE status = 'queued' AND ($1::text IS NULL OR group_id = $1)
            ORDER BY position FOR UPDATE) RETURNING *`;
        const rows = await sql.all<SharedRow>(query, group);
        await engine.remove(
          sql,
          rows.map(({ entry }) => entry),
        );
        await tellJobs(sql, rows, 'ended');
        return rows.sort((a, b) => a.position - b.position).map(toJob);
      });
    },
    async move(id, place) {
      const queued = `SELECT * FROM ${jobs} WHERE id = $1 AND status = 'queued' FOR UPDATE`;
      const renumber = `UPDATE ${jobs} SET rank = numbered.place FROM (
          SELECT position AS at, row_number() OVER (ORDER BY ${IN_TURN}, position) AS place
          FROM ${jobs} WHERE status IN ('queued', 'running')) AS numbered
        WHERE position = numbered.at`;
      return transaction(async (sql) => {
        await lockQueue(sql);
        if (!(await sql.one(queued, id))) return null;
        if ('before' in place) {
          const other = await sql.one<Row>(queued, place.before);
          if (!other) return null;
          // Twice as fine, so that there is room before the other one.
          await sql.all(`UPDATE ${jobs} SET rank = 2 * rank WHERE status IN ('queued', 'running')`);
          const put = `UPDATE ${jobs} SET priority = $1, rank = (SELECT rank - 1 FROM ${jobs} WHERE id = $2) WHERE id = $3`;
          await sql.all(put, other.priority, place.before, id);
        } else {
          const last = `SELECT coalesce(max(rank), 0) + 1 FROM ${jobs} WHERE status IN ('queued', 'running')`;
          await sql.all(`UPDATE ${jobs} SET priority = $1, rank = (${last}) WHERE id = $2`, place.priority, id);
        }
        await sql.all(renumber);
        const moved = (await sql.one<Row>(queued, id)) as Row;
        await tellJobs(sql, [moved], 'moved');
        return toJob(moved);
      });
    },
    async get(id) {
      return toJobOrNull(await alone().one<Row>(`SELECT * FROM ${jobs} WHERE id = $1`, id));
    },
    async list({ status, source, group, ids }, cursor, limit) {
      const query = `SELECT * FROM ${jobs} WHERE ($1::text IS NULL OR status = $1) AND ($2::text IS NULL OR source = $2)
        AND ($3::text IS NULL OR group_id = $3) AND ($4::text[] IS NULL OR id = ANY($4))`;
      const { rows, next } = await postgresPage<Row>(alone(), query, cursor, limit, status, source, group, ids);
      return { jobs: rows.map(toJob), next };
    },
    async waiting(limit) {
      const query = `SELECT id, work FROM ${jobs} WHERE status = 'queued' ORDER BY ${IN_TURN} LIMIT $1`;
      return (await alone().all<Waiting>(query, limit)).map(({ id, work }) => ({ id, work }));
    },
    counts: () => counts(alone()),
    async nowMs() {
      const row = await alone().one<{ ms: number }>(
        'SELECT extract(epoch FROM clock_timestamp())::float8 * 1000 AS ms',
      );
      return (row as { ms: number }).ms;
    },
    async recover(completedSteps) {
      const held = await alone().all<Row>(
        `SELECT * FROM ${jobs} WHERE status = 'running' AND host = $1 ORDER BY position`,
        host,
      );
      const released: Row[] = [];
      for (const { id, attempts } of held) {
        const row = await settle(id, attempts, async (sql) => {
          const still = `SELECT * FROM ${jobs} WHERE id = $1 AND attempts = $2 AND status = 'running' FOR UPDATE`;
          const known = await sql.one<SharedRow>(still, id, attempts);
          if (!known) return null;
          const step = Math.max(known.step, completedSteps(id));
          return putBack(sql, known, step > known.step ? 'outside-after-progress' : 'outside', step);
        });
        if (row) released.push(row);
      }
      return released.map(toJob);
    },
    async remove(ids) {
      await transaction(async (sql) => {
        const query = `DELETE FROM ${jobs} WHERE id = ANY($1) AND finished_at IS NOT NULL
          RETURNING id, image::json ->> 'file' AS file`;
        await notices.tellPictures(sql, await sql.all<Expired>(query, ids), 'removed');
      });
    },
    machines: {
      async tell(progress, hasPreview) {
        const bare: JobProgress = progress.type === 'step' ? { ...progress, preview: null } : progress;
        await notices.tell(alone(), { type: 'progress', progress: bare, hasPreview });
      },
      async drain(name, isDrained) {
        const isKnown = await machines.drain(name, isDrained);
        if (isKnown) await tellMachines();
        return isKnown;
      },
    },
    whenAway: whyAway,
    async close() {
      await claims.close();
      const closing = machines
        .stopped()
        .then(tellMachines)
        .catch(() => 'it falls silent, and the others see that')
        .then(() => Promise.all([notices.close(), database.boss.stop({ graceful: false })]));
      // A connection that was cut is not heard to close.
      await Promise.race([closing, new Promise((resolve) => setTimeout(resolve, CLOSE_LIMIT_MS).unref())]);
    },
  };
}

/** What is done for it is undone: the sweep that took it puts it back. */
class TakenFromUs extends Error {}
