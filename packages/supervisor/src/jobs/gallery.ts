/** Finished pictures: shown, starred, thrown away and taken back, and removed when there are too many. */

import { IMAGE_FILE } from '@qwen-supervisor/protocol/data-files';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { PictureChange } from '@qwen-supervisor/protocol/events';
import type { Job, PictureFilter, PictureMarks } from '@qwen-supervisor/protocol/job';
import type { PictureFacets, PicturePage } from '@qwen-supervisor/protocol/messages';
import type { Logger } from 'pino';
import type { EventLog } from '../records/event-log.js';
import type { Expired, JobStore, KeepLimits } from './job-store.js';
import type { OrderedWrites } from './ordered-writes.js';
import type { SharedFiles } from './shared-files.js';
import { INPUT_AGE_MS, removeInputs, removePicture, tidily } from './stored-pictures.js';

const DAY_MS = 86_400_000;
/** Meanwhile others wait, and somebody may take back what is thrown away: then it is looked at anew. */
const FORGOTTEN_AT_ONCE = 500;
/** Ids of one event. */
const TOLD_AT_ONCE = 1000;

/** What is kept; null: no limit. */
export interface Keep {
  keepDays: number | null;
  keepTrashDays: number | null;
  keepBytes: number | null;
}

interface Parts {
  dataDir: string;
  store: JobStore;
  shared: SharedFiles | null;
  log: Logger;
  events: EventLog;
  writes: OrderedWrites;
}

export class Gallery {
  readonly #parts: Parts;
  /** As of now: the operator may change it. */
  readonly #keep: () => Keep;

  constructor(parts: Parts, keep: () => Keep) {
    this.#parts = parts;
    this.#keep = keep;
  }

  list(filter: PictureFilter, cursor: number | null, limit: number): Promise<PicturePage> {
    const { writes, store } = this.#parts;
    return writes.inOurErrors(store.pictures(filter, cursor, limit));
  }

  facets(): Promise<PictureFacets> {
    return this.#parts.writes.inOurErrors(this.#parts.store.facets());
  }

  /** It lies here then, whoever has drawn it. @throws CodedError IMAGE_NOT_FOUND, SHARED_FOLDER_UNREACHABLE */
  async find(id: string): Promise<{ file: string; sha256: string }> {
    const image = await this.#parts.writes.inOurErrors(this.#parts.store.findImage(id));
    if (!image) throw new CodedError('IMAGE_NOT_FOUND');
    await this.#parts.shared?.getPicture(image);
    return image;
  }

  /** Tells which have changed. @throws CodedError DISK_FULL */
  async mark(ids: string[], marks: PictureMarks): Promise<string[]> {
    const changed = await this.#parts.writes.ask(() => this.#parts.store.mark(ids, marks));
    if (marks.starred !== null) this.#tell(changed, marks.starred ? 'starred' : 'unstarred');
    if (marks.trashed !== null) this.#tell(changed, marks.trashed ? 'trashed' : 'restored');
    return changed;
  }

  /** Forgets a job that has ended, with its picture. */
  async remove({ id, images: [image] }: Job): Promise<void> {
    await this.#forget([{ id, file: image ? (await this.find(image.id)).file : null }]);
  }

  /** Tells how many pictures were in it. */
  async emptyTrash(): Promise<number> {
    const { writes, store } = this.#parts;
    for (let count = 0; ; ) {
      const limits = await writes.inOurErrors(this.#limits({ keepDays: null, keepTrashDays: -1, keepBytes: null }));
      const expired = await writes.inOurErrors(store.expired(limits));
      if (expired.length === 0) return count;
      const part = expired.slice(0, FORGOTTEN_AT_ONCE);
      await this.#forget(part);
      count += part.length;
    }
  }

  /** By the clock of the store: that of a machine may be wrong by years. */
  async #limits({ keepDays, keepTrashDays, keepBytes }: Keep): Promise<KeepLimits> {
    const nowMs = await this.#parts.store.nowMs();
    const before = (days: number | null) => (days === null ? null : new Date(nowMs - days * DAY_MS).toISOString());
    return { finishedBefore: before(keepDays), trashedBefore: before(keepTrashDays), keepBytes };
  }

  /** Removes finished jobs and pictures beyond what the operator wants to keep. */
  expire(): void {
    const { writes, store, log } = this.#parts;
    const keep = this.#keep();
    if (keep.keepDays === null && keep.keepTrashDays === null && keep.keepBytes === null) return;
    writes.later(async () => {
      const expired = await store.expired(await this.#limits(keep));
      if (expired.length === 0) return;
      const part = expired.slice(0, FORGOTTEN_AT_ONCE);
      try {
        await this.#forget(part);
      } catch (error) {
        // What lies there is found again at the next look; pictures that are drawn do not wait for it.
        if (!(error instanceof CodedError) || error.code !== 'SHARED_FOLDER_UNREACHABLE') throw error;
        return log.warn({ code: error.code }, `finished jobs could not be removed: ${error.message}`);
      }
      log.info({ jobs: part.length }, 'finished jobs removed: older or larger than is to be kept');
      if (part.length < expired.length) this.expire();
    });
  }

  /** Of pictures that another machine has removed: nobody will ask for them here. */
  dropCopies(files: string[]): void {
    // What comes from outside names pictures of ours, and nothing else.
    this.#removeFiles(files.filter((file) => IMAGE_FILE.test(file)));
  }

  #removeFiles(files: string[]): void {
    const { log, dataDir } = this.#parts;
    tidily(log, () => {
      for (const file of files) removePicture(dataDir, file);
    });
  }

  /** Files first: what is still in the store is found and removed at the next look. */
  async #forget(jobs: Expired[]): Promise<void> {
    const { dataDir, store, shared, log, writes } = this.#parts;
    if (jobs.length === 0) return;
    const files = jobs.flatMap(({ file }) => file ?? []);
    await shared?.removePictures(files);
    this.#removeFiles(files);
    const ids = jobs.map(({ id }) => id);
    await writes.inOurErrors(store.remove(ids));
    const inputs = await writes.inOurErrors(store.inputs());
    tidily(log, () => removeInputs(dataDir, inputs));
    this.#tell(ids, 'removed');
    await shared?.removeInputs(inputs, INPUT_AGE_MS);
  }

  #tell(ids: string[], change: PictureChange): void {
    for (let at = 0; at < ids.length; at += TOLD_AT_ONCE)
      this.#parts.events.publish({ type: 'pictures', ids: ids.slice(at, at + TOLD_AT_ONCE), change });
  }
}
