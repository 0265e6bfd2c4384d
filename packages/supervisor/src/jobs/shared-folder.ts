/**
 * Pictures where all machines find them: a folder that each of them has mounted. It is never the truth: the row of a
 * job names what is wanted, and what nobody names is only in the way.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { replaceFile } from '@qwen-supervisor/files/replace-file';
import {
  CHECKPOINTS_FOLDER,
  IMAGES_FOLDER,
  inputFile,
  parseCheckpointName,
} from '@qwen-supervisor/protocol/data-files';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Job } from '@qwen-supervisor/protocol/job';
import type { JobRequest } from '@qwen-supervisor/protocol/job-request';

/** From one copy of a job's checkpoint to the next. */
const SAVE_MS = 5000;
/** What was copied for a job that is being drawn, or whose row is about to be written, is younger. */
const AGE_MS = 3_600_000;

export class SharedFolder {
  readonly #root: string;
  readonly #dataDir: string;
  /** By job: when its checkpoint was last copied. */
  readonly #savedAtMs = new Map<string, number>();

  /** `root` must be there: a folder that was not mounted is not to be made on the disk below. */
  constructor(root: string, dataDir: string) {
    this.#root = root;
    this.#dataDir = dataDir;
  }

  /** A finished picture, whose row is written after it. @throws CodedError SHARED_FOLDER_UNREACHABLE */
  putPicture(picture: { file: string; sha256: string }): Promise<void> {
    return this.#put(picture.file, pictureKey(picture));
  }

  /** The pictures that a job draws over. @throws CodedError SHARED_FOLDER_UNREACHABLE */
  async putInputs(request: JobRequest): Promise<void> {
    for (const sha256 of inputsOf(request)) await this.#put(inputFile(sha256), inputFile(sha256));
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

  /**
   * The newest checkpoint of a job that is being drawn, now and then: what is missed costs another machine a few steps.
   * @throws CodedError SHARED_FOLDER_UNREACHABLE
   */
  async putCheckpoint(jobId: string): Promise<void> {
    const nowMs = performance.now();
    if (nowMs - (this.#savedAtMs.get(jobId) ?? Number.NEGATIVE_INFINITY) < SAVE_MS) return;
    this.#savedAtMs.set(jobId, nowMs);
    const newest = newestOf(await readdir(join(this.#dataDir, CHECKPOINTS_FOLDER)), jobId);
    if (newest === null) return;
    await this.#put(checkpointFile(newest), checkpointFile(newest));
    const older = (await this.#names(CHECKPOINTS_FOLDER)).filter((name) => name !== newest && isOf(name, jobId));
    await this.#remove(CHECKPOINTS_FOLDER, older);
  }

  async #getCheckpoint(jobId: string): Promise<void> {
    const there = newestOf(await this.#names(CHECKPOINTS_FOLDER), jobId);
    const here = newestOf(await readdir(join(this.#dataDir, CHECKPOINTS_FOLDER)), jobId);
    if (there !== null && stepOf(there) > stepOf(here))
      await this.#get(checkpointFile(there), checkpointFile(there), null);
  }

  /** Of a job that has ended. @throws CodedError SHARED_FOLDER_UNREACHABLE */
  async removeCheckpoints(jobId: string): Promise<void> {
    this.#savedAtMs.delete(jobId);
    const names = await this.#names(CHECKPOINTS_FOLDER);
    await this.#remove(
      CHECKPOINTS_FOLDER,
      names.filter((name) => isOf(name, jobId)),
    );
  }

  /** Of jobs that nobody wants any more. @throws CodedError SHARED_FOLDER_UNREACHABLE */
  async removePictures(files: string[]): Promise<void> {
    const unwanted = new Set(files.map((file) => basename(file, '.png')));
    const names = await this.#names(IMAGES_FOLDER);
    await this.#remove(
      IMAGES_FOLDER,
      names.filter((name) => unwanted.has(name.split('.')[0] as string)),
    );
  }

  /** Copies here of pictures that others have removed there. */
  async removeStale(): Promise<void> {
    const kept = new Set((await this.#names(IMAGES_FOLDER)).map((name) => `${name.split('.')[0]}.png`));
    for (const name of await readdir(join(this.#dataDir, IMAGES_FOLDER))) {
      const path = join(this.#dataDir, IMAGES_FOLDER, name);
      if (name.endsWith('.png') && !kept.has(name) && Date.now() - (await stat(path)).mtimeMs > AGE_MS)
        await rm(path, { force: true });
    }
  }

  #remove(folder: string, names: string[]): Promise<void> {
    return this.#reach(async () => {
      for (const name of names) await rm(join(this.#root, folder, name), { force: true });
    });
  }

  #names(name: string): Promise<string[]> {
    return this.#reach(async () => {
      const folder = join(this.#root, name);
      return existsSync(folder) || !existsSync(this.#root) ? readdir(folder) : [];
    });
  }

  #put(file: string, key: string): Promise<void> {
    return this.#reach(async () => {
      const to = join(this.#root, key);
      if (existsSync(to)) return;
      await mkdir(dirname(to)).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'EEXIST') throw error;
      });
      const bytes = await readFile(join(this.#dataDir, file)).catch((error: NodeJS.ErrnoException) => {
        // A checkpoint gives way to a newer one at any time.
        if (error.code === 'ENOENT') return null;
        throw error;
      });
      if (bytes !== null) await replaceFile(to, bytes);
    });
  }

  /** `sha256`: of what is wanted, where it is known. Nothing happens where there is no such file, or another one. */
  async #get(key: string, file: string, sha256: string | null): Promise<void> {
    const to = join(this.#dataDir, file);
    if (existsSync(to)) return;
    const bytes = await this.#reach(() =>
      readFile(join(this.#root, key)).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT' && existsSync(this.#root)) return null;
        throw error;
      }),
    );
    if (bytes === null) return;
    if (sha256 !== null && createHash('sha256').update(bytes).digest('hex') !== sha256) return;
    await replaceFile(to, bytes);
  }

  async #reach<T>(act: () => Promise<T>): Promise<T> {
    try {
      return await act();
    } catch (cause) {
      throw new CodedError('SHARED_FOLDER_UNREACHABLE', `${this.#root}: ${(cause as Error).message}`, { cause });
    }
  }
}

/** By its content: whoever was late, and draws the same job still, does not overwrite what counts. */
function pictureKey({ file, sha256 }: { file: string; sha256: string }): string {
  return file.replace(/\.png$/, `.${sha256.slice(0, 16)}.png`);
}

const checkpointFile = (name: string) => `${CHECKPOINTS_FOLDER}/${name}`;
const isOf = (name: string, jobId: string) => parseCheckpointName(name)?.jobId === jobId;
const stepOf = (name: string | null) => (name === null ? 0 : (parseCheckpointName(name)?.step ?? 0));

function newestOf(names: string[], jobId: string): string | null {
  const own = names.filter((name) => isOf(name, jobId));
  return own.sort((a, b) => stepOf(b) - stepOf(a))[0] ?? null;
}

function inputsOf({ initImage, mask }: JobRequest): string[] {
  return [initImage, mask].filter((sha256) => sha256 !== null);
}
