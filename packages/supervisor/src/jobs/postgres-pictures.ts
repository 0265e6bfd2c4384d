/** The pictures in the job store on PostgreSQL: a job that is done has one, and the marks on it. */
import type { PictureChange } from '@qwen-supervisor/protocol/events';
import { fittingPage, type StoredImage, wordsOf } from './job-row.js';
import type { JobStore } from './job-store.js';
import type { PostgresDatabase, Sql } from './postgres-database.js';
import type { PostgresNotices } from './postgres-notices.js';
import { expiredOf, type Found, type Kept, LOOKED_AT_ONCE } from './retention.js';

/** One page of what `sql` selects (it ends in its conditions), newest first; rows have their `position`. */
export async function postgresPage<R extends { position: number; request?: string }>(
  sql: Sql,
  query: string,
  cursor: number | null,
  limit: number,
  ...values: unknown[]
): Promise<{ rows: R[]; next: number | null }> {
  const [before, most] = [values.length + 1, values.length + 2];
  const page = `${query} AND ($${before}::int IS NULL OR position < $${before}) ORDER BY position DESC LIMIT $${most}`;
  const rows = await sql.all<R>(page, ...values, cursor, limit + 1);
  const shown = fittingPage(rows, limit);
  return { rows: shown, next: rows.length > shown.length ? (shown.at(-1) as R).position : null };
}

type Operations = Pick<JobStore, 'pictures' | 'facets' | 'mark' | 'inputs' | 'findImage' | 'expired'>;

export function postgresPictures(database: PostgresDatabase, notices: PostgresNotices): Operations {
  const jobs = `${database.schema}.jobs`;
  const all = <R>(query: string, ...values: unknown[]) => database.alone.all<R>(query, ...values);
  return {
    async pictures({ search, starred, trashed, model, width: wide, height: high }, cursor, limit) {
      const query = `SELECT position, image::json ->> 'id' AS id, width, height, finished_at, starred
        FROM ${jobs} WHERE status = 'done' AND (trashed_at IS NOT NULL) = $1 AND ($2::int IS NULL OR starred = $2)
          AND ($3::text IS NULL OR model = $3) AND ($4::int IS NULL OR width = $4) AND ($5::int IS NULL OR height = $5)
          AND prompt ILIKE ALL ($6::text[])`;
      type Entry = { position: number; id: string; width: number; height: number; finished_at: string; starred: 0 | 1 };
      const words = wordsOf(search ?? '').map((word) => `%${word}%`);
      const star = starred === null ? null : Number(starred);
      const values = [trashed, star, model, wide, high, words];
      const { rows, next } = await postgresPage<Entry>(database.alone, query, cursor, limit, ...values);
      return {
        pictures: rows.map((row) => [row.id, row.width, row.height, Date.parse(row.finished_at), row.starred]),
        next,
      };
    },
    async facets() {
      const kept = `FROM ${jobs} WHERE status = 'done' AND trashed_at IS NULL`;
      const models = `SELECT model, count(*)::int AS count ${kept} AND model IS NOT NULL GROUP BY model ORDER BY count DESC`;
      const sizes = `SELECT width, height, count(*)::int AS count ${kept}
        GROUP BY 1, 2 ORDER BY count DESC, 1, 2`;
      return { models: await all(models), sizes: await all(sizes) };
    },
    mark(ids, { starred, trashed }) {
      const these = `status = 'done' AND id = ANY($1) RETURNING id`;
      const now = `${database.schema}.now_text()`;
      return database.transaction(async (sql) => {
        const star = `UPDATE ${jobs} SET starred = $2 WHERE starred <> $2 AND ${these}`;
        const trash = `UPDATE ${jobs} SET trashed_at = CASE WHEN $2 THEN ${now} END
          WHERE (trashed_at IS NOT NULL) <> $2 AND ${these}`;
        type Marked = { id: string };
        const marked = async (change: PictureChange, rows: Promise<Marked[]>) => {
          const changed = await rows;
          await notices.tellPictures(sql, changed, change);
          return changed.map(({ id }) => id);
        };
        const changed = [
          ...(starred === null
            ? []
            : await marked(starred ? 'starred' : 'unstarred', sql.all<Marked>(star, ids, Number(starred)))),
          ...(trashed === null
            ? []
            : await marked(trashed ? 'trashed' : 'restored', sql.all<Marked>(trash, ids, trashed))),
        ];
        return [...new Set(changed)];
      });
    },
    async inputs() {
      const query = `SELECT init_image AS input FROM ${jobs} WHERE init_image IS NOT NULL
        UNION SELECT mask FROM ${jobs} WHERE mask IS NOT NULL`;
      return new Set((await all<{ input: string }>(query)).map(({ input }) => input));
    },
    async findImage(id) {
      const [row] = await all<{ image: string }>(
        `SELECT image FROM ${jobs} WHERE image IS NOT NULL AND image::json ->> 'id' = $1`,
        id,
      );
      if (!row) return null;
      const { file, sha256 } = JSON.parse(row.image) as StoredImage;
      return { file, sha256 };
    },
    async expired({ finishedBefore, trashedBefore, keepBytes }) {
      const found = `SELECT id, image::json ->> 'file' AS file, bytes, image IS NOT NULL AND starred = 0 AS counts FROM ${jobs}`;
      const old = `${found} WHERE (starred = 0 AND finished_at < $1) OR trashed_at < $2 ORDER BY finished_at, position`;
      const gone = await all<Found>(old, finishedBefore, trashedBefore);
      if (keepBytes === null) return gone.map(({ id, file }) => ({ id, file }));
      const sizes = `SELECT coalesce(sum(bytes), 0) AS bytes, (count(*) FILTER (WHERE starred = 0))::int AS pictures
        FROM ${jobs} WHERE image IS NOT NULL`;
      const [kept] = (await all<Kept>(sizes)) as [Kept];
      const oldest = `${found} WHERE finished_at IS NOT NULL AND image IS NOT NULL AND starred = 0
        ORDER BY finished_at, position LIMIT ${LOOKED_AT_ONCE} OFFSET $1`;
      return expiredOf(gone, kept, keepBytes, (offset) => all<Found>(oldest, offset));
    },
  };
}
