/**
 * What supervisors that share a store tell each other. A notice may be lost, and is small: it names what has changed,
 * which whoever wants it reads.
 */
import { randomUUID } from 'node:crypto';
import type { PictureChange } from '@qwen-supervisor/protocol/events';
import type { JobProgress } from '@qwen-supervisor/protocol/job';
import type { ClaimHooks, JobNews } from './postgres-claims.js';
import type { PostgresDatabase, Sql } from './postgres-database.js';

/** Ids of one notice, which may have 8,000 bytes. */
const TOLD_AT_ONCE = 80;

type Notice =
  | { type: 'jobs'; ids: string[]; news: JobNews }
  | { type: 'cancel'; id: string; keep: boolean }
  | { type: 'progress'; progress: JobProgress; hasPreview: boolean }
  | { type: 'pictures'; ids: string[]; files: string[]; change: PictureChange }
  | { type: 'machines' };

export class PostgresNotices {
  readonly #database: PostgresDatabase;
  readonly #hooks: ClaimHooks;
  readonly #channel: string;
  /** Who has opened the store so often that it hears itself, too. */
  readonly #session = randomUUID();
  #listening: { close(): Promise<void> } | undefined;

  constructor(database: PostgresDatabase, hooks: ClaimHooks) {
    this.#database = database;
    this.#hooks = hooks;
    this.#channel = `${database.schema}_jobs`;
  }

  /** `look`: at the machines. */
  async listen(look: () => void): Promise<void> {
    const hear = (text: string) => this.#hear(text, look);
    this.#listening = await this.#database.boss.getDb().listen?.(this.#channel, hear, () => this.#hooks.onMissed());
  }

  async close(): Promise<void> {
    await this.#listening?.close();
  }

  /** All supervisors hear it when the transaction is done. */
  async tell(sql: Sql, notice: Notice): Promise<void> {
    await sql.all('SELECT pg_notify($1, $2)', this.#channel, JSON.stringify({ ...notice, from: this.#session }));
  }

  /** So it is with these jobs now. */
  async tellJobs(sql: Sql, ids: string[], news: JobNews): Promise<void> {
    for (const part of parts(ids)) await this.tell(sql, { type: 'jobs', ids: part, news });
  }

  /** `file`: of one that is gone, relative to the data folder. */
  async tellPictures(sql: Sql, jobs: { id: string; file?: string | null }[], change: PictureChange): Promise<void> {
    for (const part of parts(jobs)) {
      const files = part.flatMap(({ file }) => file ?? []);
      await this.tell(sql, { type: 'pictures', ids: part.map(({ id }) => id), files, change });
    }
  }

  #hear(text: string, look: () => void): void {
    const notice = noticeOf(text);
    if (notice === null) return;
    const hooks = this.#hooks;
    const isOurs = notice.from === this.#session;
    switch (notice.type) {
      case 'cancel':
        return hooks.onCancel(notice.id, notice.keep);
      case 'jobs':
        if (!isOurs) hooks.onJobs(notice.ids, notice.news);
        // What we put back we may take up again.
        if (notice.news === 'queued' || notice.news === 'requeued') hooks.onWork();
        return;
      case 'progress':
        return isOurs ? undefined : hooks.onProgress(notice.progress, notice.hasPreview);
      case 'pictures':
        return isOurs ? undefined : hooks.onPictures(notice.ids, notice.change, notice.files);
      case 'machines':
        // One that is drained no more may find work.
        hooks.onWork();
        return look();
    }
  }
}

function* parts<T>(all: T[]): Generator<T[]> {
  for (let at = 0; at < all.length; at += TOLD_AT_ONCE) yield all.slice(at, at + TOLD_AT_ONCE);
}

/** What it must have that is not looked for elsewhere. */
const SHAPES: { [K in Notice['type']]: (notice: Record<string, unknown>) => boolean } = {
  jobs: ({ ids }) => Array.isArray(ids),
  pictures: ({ ids, files }) => Array.isArray(ids) && Array.isArray(files),
  cancel: ({ id }) => typeof id === 'string',
  progress: ({ progress }) => typeof (progress as JobProgress | null)?.jobId === 'string',
  machines: () => true,
};

/** Null for what others send on our channel, or newer versions. */
function noticeOf(text: string): (Notice & { from?: string }) | null {
  try {
    const notice = JSON.parse(text) as Notice & Record<string, unknown>;
    return Object.hasOwn(SHAPES, notice.type) && SHAPES[notice.type](notice) ? notice : null;
  } catch {
    return null;
  }
}
