/** The pictures in the job store on SQLite: a job that is done has one, and the marks on it. */
import type { PictureFilter, PictureMarks } from '@qwen-supervisor/protocol/job';
import { type StoredImage, wordsOf } from './job-row.js';
import type { JobStore } from './job-store.js';
import { expiredOf, type Found, type Kept, LOOKED_AT_ONCE } from './retention.js';
import type { SqliteStatements } from './sqlite-statements.js';

interface SqlitePictures {
  operations: Pick<JobStore, 'pictures' | 'facets' | 'mark' | 'inputs' | 'findImage' | 'expired'>;
  /** A picture of so many bytes is there. */
  added(bytes: number): void;
  /** Some are gone. */
  forget(): void;
}

export function sqlitePictures(statements: SqliteStatements): SqlitePictures {
  const all = <R>(sql: string, ...values: unknown[]) => statements.prepare(sql).all(...values) as R[];
  /**
   * Bytes of all pictures, and how many of them have no star: summed up when it is first asked for and after changes,
   * else kept up to date.
   */
  let known: Kept | null = null;
  const kept = () => {
    const sql = `SELECT coalesce(sum(image ->> 'bytes'), 0) AS bytes, count(*) FILTER (WHERE starred = 0) AS pictures FROM jobs
      WHERE finished_at IS NOT NULL AND image IS NOT NULL`;
    const [sum] = known ? [known] : all<Kept>(sql);
    known = { bytes: sum?.bytes ?? 0, pictures: sum?.pictures ?? 0 };
    return known;
  };

  return {
    added(bytes) {
      if (known) known = { bytes: known.bytes + bytes, pictures: known.pictures + 1 };
    },
    forget() {
      known = null;
    },
    operations: {
      async pictures(filter, cursor, limit) {
        const { conditions, values } = conditionsOf(filter);
        const sql = `SELECT position, image ->> 'id' AS id, request ->> 'width' AS width,
          request ->> 'height' AS height, finished_at, starred FROM jobs WHERE ${conditions.join(' AND ')}`;
        type Entry = { id: string; width: number; height: number; finished_at: string; starred: 0 | 1 };
        const { rows, next } = statements.page<Entry & { position: number }>(sql, cursor, limit, ...values);
        return {
          pictures: rows.map((row) => [row.id, row.width, row.height, Date.parse(row.finished_at), row.starred]),
          next,
        };
      },
      async facets() {
        const kept = `FROM jobs WHERE status = 'done' AND trashed_at IS NULL`;
        const models = `SELECT model, count(*) AS count ${kept} AND model IS NOT NULL GROUP BY model ORDER BY count DESC`;
        const sizes = `SELECT request ->> 'width' AS width, request ->> 'height' AS height, count(*) AS count ${kept}
          GROUP BY 1, 2 ORDER BY count DESC, 1, 2`;
        return {
          models: all<{ model: string; count: number }>(models).map(({ model, count }) => ({ model, count })),
          sizes: all<{ width: number; height: number; count: number }>(sizes).map(({ width, height, count }) => ({
            width,
            height,
            count,
          })),
        };
      },
      async mark(ids, { starred, trashed }: PictureMarks) {
        const now = new Date().toISOString();
        const star = `starred = ?2 WHERE starred != ?2`;
        const trash = trashed ? `trashed_at = ?2 WHERE trashed_at IS NULL` : `trashed_at = ?2 WHERE trashed_at NOTNULL`;
        const set = (change: string, value: unknown) =>
          all<{ id: string }>(
            `UPDATE jobs SET ${change} AND status = 'done' AND id IN (SELECT value FROM json_each(?1)) RETURNING id`,
            JSON.stringify(ids),
            value,
          ).map(({ id }) => id);
        known = null;
        return statements.transaction(() => [
          ...new Set([
            ...(starred === null ? [] : set(star, starred ? 1 : 0)),
            ...(trashed === null ? [] : set(trash, trashed ? now : null)),
          ]),
        ]);
      },
      async inputs() {
        const sql = ['initImage', 'mask']
          .map((key) => `SELECT request ->> '${key}' AS input FROM jobs WHERE request ->> '${key}' IS NOT NULL`)
          .join(' UNION ');
        return new Set(all<{ input: string }>(sql).map(({ input }) => input));
      },
      async findImage(id) {
        const [row] = all<{ image: string | null }>(`SELECT image FROM jobs WHERE image ->> 'id' = ?`, id);
        if (!row?.image) return null;
        const { file, sha256 } = JSON.parse(row.image) as StoredImage;
        return { file, sha256 };
      },
      async expired({ finishedBefore, trashedBefore, keepBytes }) {
        const found = `SELECT id, image ->> 'file' AS file, coalesce(image ->> 'bytes', 0) AS bytes,
          image IS NOT NULL AND starred = 0 AS counts FROM jobs`;
        const old = `${found} WHERE finished_at < ? AND starred = 0 ORDER BY finished_at`;
        const trash = `${found} WHERE trashed_at < ?`;
        const gone = [
          ...(finishedBefore === null ? [] : all<Found>(old, finishedBefore)),
          ...(trashedBefore === null ? [] : all<Found>(trash, trashedBefore)),
        ];
        // Without a bound nothing is summed up.
        if (keepBytes === null) return [...new Map(gone.map(({ id, file }) => [id, { id, file }])).values()];
        const oldest = `${found} WHERE finished_at IS NOT NULL AND image IS NOT NULL AND starred = 0
          ORDER BY finished_at, position LIMIT ${LOOKED_AT_ONCE} OFFSET ?`;
        // In pages: a statement that is left in the middle keeps the database open for reading.
        return expiredOf(gone, kept(), keepBytes, (offset) => all<Found>(oldest, offset));
      },
    },
  };
}

function conditionsOf({ search, starred, trashed, model, width, height }: PictureFilter): {
  conditions: string[];
  values: unknown[];
} {
  const given: [string, unknown][] = [];
  if (starred !== null) given.push(['starred = ?', starred ? 1 : 0]);
  if (model !== null) given.push(['model = ?', model]);
  if (width !== null) given.push([`request ->> 'width' = ?`, width]);
  if (height !== null) given.push([`request ->> 'height' = ?`, height]);
  for (const word of wordsOf(search ?? '')) given.push([`request ->> 'prompt' LIKE ? ESCAPE '\\'`, `%${word}%`]);
  return {
    conditions: [
      `status = 'done'`,
      `trashed_at ${trashed ? 'IS NOT' : 'IS'} NULL`,
      ...given.map(([condition]) => condition),
    ],
    values: given.map(([, value]) => value),
  };
}
