/**
 * Pictures, and what is needed to draw them, where all machines find them. What lies there is never the truth: the row
 * of a job names what is wanted, and what nobody names is only in the way.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { replaceFile } from '@qwen-supervisor/files/replace-file';
import {
  CHECKPOINTS_FOLDER,
  IMAGES_FOLDER,
  INPUTS_FOLDER,
  inputFile,
  parseCheckpointName,
} from '@qwen-supervisor/protocol/data-files';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Job } from '@qwen-supervisor/protocol/job';
import type { JobRequest } from '@qwen-supervisor/protocol/job-request';
import type { Logger } from 'pino';
import type { Blobs } from './blobs.js';

/** From one copy of a job's checkpoint to the next. */
const SAVE_MS = 5000;
/** What jobs look like that are being drawn: only here, and only the newest of each. */
const PREVIEWS_FOLDER = 'previews';
const FOLDERS = [IMAGES_FOLDER, INPUTS_FOLDER, CHECKPOINTS_FOLDER, PREVIEWS_FOLDER];

export class SharedFiles {
  readonly #log: Pick<Logger, 'warn'>;
  readonly #blobs: Blobs;
  readonly #dataDir: string;
  /** The copy of a checkpoint that is under way; null without one. */
  #saving: Promise<void> | null = null;
  /** By job: when its checkpoint was last copied. */
  readonly #savedAtMs = new Map<string, number>();

  constructor(blobs: Blobs, dataDir: string, log: Pick<Logger, 'warn'>) {
    this.#log = log;
    this.#blobs = blobs;
    this.#dataDir = dataDir;
  }

  /** Once, before the first start of all. @throws CodedError SHARED_FOLDER_UNREACHABLE */
  make(): Promise<void> {
    return this.#blobs.make(FOLDERS);
  }

  /** @throws CodedError SHARED_FOLDER_UNREACHABLE */
  requireThere(): Promise<void> {
    return this.#blobs.requireThere(FOLDERS);
  }

  /**
   * A finished picture, whose row is written after it. Whether it is there now: not where somebody has removed the
   * file here. @throws CodedError SHARED_FOLDER_UNREACHABLE
   */
  putPicture(picture: { file: string; sha256: string }): Promise<boolean> {
    return this.#put(picture.file, pictureKey(picture));
  }

  /** The pictures that a job draws over. @throws CodedError SHARED_FOLDER_UNREACHABLE */
  async putInputs(request: JobRequest): Promise<void> {
    // Also one that is there: nobody may hold it for old before the job is accepted.
    for (const sha256 of inputsOf(request)) await this.#write(inputFile(sha256), inputFile(sha256));
  }

  /** Copies it here if it is not. @throws CodedError SHARED_FOLDER_UNREACHABLE */
  getPicture(picture: { file: string; sha256: string }): Promise<void> {
    return this.#get(pictureKey(picture), picture.file, picture.sha256);
  }

  /**
   * What a job needs that is about to be drawn here: pictures that it draws over, and what others have made of it.
   * @throws CodedError SHARED_FOLDER_UNREACHABLE
   */
  async getReady(job: Job): Promise<void> {
    for (const sha256 of inputsOf(job)) await this.#get(inputFile(sha256), inputFile(sha256), null);
    await this.#getCheckpoint(job.id);
  }

  /** @throws CodedError SHARED_FOLDER_UNREACHABLE */
  putPreview(jobId: string, png: Uint8Array): Promise<void> {
    return this.#blobs.put(previewFile(jobId), png);
  }

  /** Null where it is gone already. @throws CodedError SHARED_FOLDER_UNREACHABLE */
  getPreview(jobId: string): Promise<Uint8Array | null> {
    return this.#blobs.get(previewFile(jobId));
  }

  /** One that came when its job had ended. @throws CodedError SHARED_FOLDER_UNREACHABLE */
  removePreview(jobId: string): Promise<void> {
    return this.#blobs.remove([previewFile(jobId)]);
  }

  /** A step was completed: another machine may have to go on from there. */
  advanced(jobId: string): void {
    this.#inBackground(this.#putCheckpoint(jobId));
  }

  /** Jobs of which something is there: most of them run. None where it does not answer: they are seen the next time. */
  async begun(): Promise<string[]> {
    try {
      const traces = await Promise.all(
        [CHECKPOINTS_FOLDER, PREVIEWS_FOLDER].map((folder) => this.#blobs.list(folder, '')),
      );
      return [...new Set(traces.flat().map((name) => name.split('.')[0] as string))];
    } catch (error) {
      const { code, message } = error as CodedError;
      this.#log.warn({ code }, message);
      return [];
    }
  }

  /** A supervisor that is killed then leaves it to the others, and to its next start. */
  ended(jobId: string): void {
    this.#inBackground(this.#removeTraces(jobId));
  }

  #inBackground(act: Promise<void>): void {
    act.catch((error: CodedError) => this.#log.warn({ code: error.code }, error.message));
  }

  /**
   * The newest checkpoint of a job that is being drawn, now and then: what is missed costs another machine a few steps.
   * @throws CodedError SHARED_FOLDER_UNREACHABLE
   */
  async #putCheckpoint(jobId: string): Promise<void> {
    const nowMs = performance.now();
    if (this.#saving || nowMs - (this.#savedAtMs.get(jobId) ?? Number.NEGATIVE_INFINITY) < SAVE_MS) return;
    this.#savedAtMs.set(jobId, nowMs);
    this.#saving = this.#saveCheckpoint(jobId).finally(() => {
      this.#saving = null;
    });
    await this.#saving;
  }

  async #saveCheckpoint(jobId: string): Promise<void> {
    const newest = newestOf(await readdir(join(this.#dataDir, CHECKPOINTS_FOLDER)), jobId);
    if (newest === null) return;
    await this.#put(checkpointFile(newest), checkpointFile(newest));
    const own = await this.#blobs.list(CHECKPOINTS_FOLDER, `${jobId}.`);
    await this.#remove(
      CHECKPOINTS_FOLDER,
      own.filter((name) => name !== newest && isOf(name, jobId)),
    );
  }

  async #getCheckpoint(jobId: string): Promise<void> {
    const there = newestOf(await this.#blobs.list(CHECKPOINTS_FOLDER, `${jobId}.`), jobId);
    const here = newestOf(await readdir(join(this.#dataDir, CHECKPOINTS_FOLDER)), jobId);
    if (there !== null && stepOf(there) > stepOf(here))
      await this.#get(checkpointFile(there), checkpointFile(there), null);
  }

  /** What was kept of a job while it ran. @throws CodedError SHARED_FOLDER_UNREACHABLE */
  async #removeTraces(jobId: string): Promise<void> {
    this.#savedAtMs.delete(jobId);
    // A copy that arrives later would stay. Whoever makes it hears how it fails.
    await Promise.allSettled([this.#saving]);
    // Also what was only half written.
    for (const folder of [CHECKPOINTS_FOLDER, PREVIEWS_FOLDER])
      await this.#remove(folder, await this.#blobs.list(folder, `${jobId}.`));
  }

  /** Of jobs that nobody wants any more. @throws CodedError SHARED_FOLDER_UNREACHABLE */
  async removePictures(files: string[]): Promise<void> {
    if (files.length === 0) return;
    const unwanted = new Set(files.map((file) => basename(file, '.png')));
    // There may be very many others.
    const names = await this.#blobs.list(IMAGES_FOLDER, commonBeginning([...unwanted]));
    await this.#remove(
      IMAGES_FOLDER,
      names.filter((name) => unwanted.has(name.split('.')[0] as string)),
    );
  }

  /**
   * Pictures that no job draws over; `wanted` are the SHA-256 of those that one does. One is copied before its job is
   * accepted: what is younger than `ageMs`, by the clock of the folder, may still be wanted.
   * @throws CodedError SHARED_FOLDER_UNREACHABLE
   */
  async removeInputs(wanted: Set<string>, ageMs: number): Promise<void> {
    const isWanted = (name: string) => wanted.has(name.split('.')[0] as string);
    const unwanted = (await this.#blobs.list(INPUTS_FOLDER, '')).filter((name) => !isWanted(name));
    const ages = [...(await this.#blobs.ages(INPUTS_FOLDER, unwanted))];
    await this.#remove(
      INPUTS_FOLDER,
      ages.filter(([, age]) => age > ageMs).map(([name]) => name),
    );
  }

  #remove(folder: string, names: string[]): Promise<void> {
    return this.#blobs.remove(names.map((name) => `${folder}/${name}`));
  }

  async #put(file: string, key: string): Promise<boolean> {
    return (await this.#blobs.has(key)) || (await this.#write(file, key));
  }

  /** Whether there was such a file. */
  async #write(file: string, key: string): Promise<boolean> {
    const bytes = await readFile(join(this.#dataDir, file)).catch((error: NodeJS.ErrnoException) => {
      // A checkpoint gives way to a newer one at any time.
      if (error.code === 'ENOENT') return null;
      throw new CodedError('SHARED_FOLDER_UNREACHABLE', `${file} cannot be copied: ${error.message}`, { cause: error });
    });
    if (bytes !== null) await this.#blobs.put(key, bytes);
    return bytes !== null;
  }

  /**
   * `sha256`: of what is wanted, where it is known. Nothing happens where there is no such file, or another one.
   * @throws CodedError SHARED_FOLDER_UNREACHABLE, DISK_FULL
   */
  async #get(key: string, file: string, sha256: string | null): Promise<void> {
    const to = join(this.#dataDir, file);
    if (existsSync(to)) return;
    await this.requireThere();
    const bytes = await this.#blobs.get(key);
    if (bytes === null) return;
    if (sha256 !== null && createHash('sha256').update(bytes).digest('hex') !== sha256) return;
    await replaceFile(to, bytes).catch((cause: Error) => {
      throw new CodedError('DISK_FULL', cause.message, { cause });
    });
  }
}

/** By its content: whoever was late, and draws the same job still, does not overwrite what counts. */
function pictureKey({ file, sha256 }: { file: string; sha256: string }): string {
  return file.replace(/\.png$/, `.${sha256.slice(0, 16)}.png`);
}

const previewFile = (jobId: string) => `${PREVIEWS_FOLDER}/${jobId}.png`;
const checkpointFile = (name: string) => `${CHECKPOINTS_FOLDER}/${name}`;
const isOf = (name: string, jobId: string) => parseCheckpointName(name)?.jobId === jobId;
const stepOf = (name: string | null) => (name === null ? 0 : (parseCheckpointName(name)?.step ?? 0));

function newestOf(names: string[], jobId: string): string | null {
  const own = names.filter((name) => isOf(name, jobId));
  return own.sort((a, b) => stepOf(b) - stepOf(a))[0] ?? null;
}

function commonBeginning([first = '', ...others]: string[]): string {
  const differsAt = [...first].findIndex((character, i) => others.some((other) => other[i] !== character));
  return differsAt < 0 ? first : first.slice(0, differsAt);
}

function inputsOf({ initImage, mask }: JobRequest): string[] {
  return [initImage, mask].filter((sha256) => sha256 !== null);
}
