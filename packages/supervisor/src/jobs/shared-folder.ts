/**
 * Pictures where all machines find them: a folder that each of them has mounted. It is never the truth: the row of a
 * job names what is wanted, and what nobody names is only in the way.
 */
import { createHash, randomUUID } from 'node:crypto';
import { access, constants, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
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

/** From one copy of a job's checkpoint to the next. */
const SAVE_MS = 5000;
/** A folder of the network that is gone may hang for ever, and be there again a moment later. */
const ANSWER_MS = 10_000;
/** What jobs look like that are being drawn: only here, and only the newest of each. */
const PREVIEWS_FOLDER = 'previews';
const FOLDERS = [IMAGES_FOLDER, INPUTS_FOLDER, CHECKPOINTS_FOLDER, PREVIEWS_FOLDER];

export class SharedFolder {
  readonly #log: Pick<Logger, 'warn'>;
  readonly #root: string;
  readonly #dataDir: string;
  #isSaving = false;
  /** What was asked of it and has not been answered, long after it should have been. */
  #hanging = 0;
  /** By job: when its checkpoint was last copied. */
  readonly #savedAtMs = new Map<string, number>();

  constructor(root: string, dataDir: string, log: Pick<Logger, 'warn'>) {
    this.#log = log;
    this.#root = root;
    this.#dataDir = dataDir;
  }

  /**
   * Makes what it needs, once: where it is not there later the folder is not mounted, and nothing may be written to the
   * disk below. @throws CodedError SHARED_FOLDER_UNREACHABLE
   */
  async make(): Promise<void> {
    for (const folder of FOLDERS)
      await this.#reach(async () => {
        const path = join(this.#root, folder);
        if (!(await isThere(path))) await mkdir(path);
      });
  }

  /** @throws CodedError SHARED_FOLDER_UNREACHABLE */
  async requireThere(): Promise<void> {
    for (const folder of FOLDERS)
      await this.#reach(() => access(join(this.#root, folder), constants.R_OK | constants.W_OK));
  }

  /** A finished picture, whose row is written after it. @throws CodedError SHARED_FOLDER_UNREACHABLE */
  putPicture(picture: { file: string; sha256: string }): Promise<void> {
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
    return this.#reach(() => replaceFile(join(this.#root, PREVIEWS_FOLDER, `${jobId}.png`), png));
  }

  /** Null where it is gone already. @throws CodedError SHARED_FOLDER_UNREACHABLE */
  getPreview(jobId: string): Promise<Uint8Array | null> {
    const file = join(this.#root, PREVIEWS_FOLDER, `${jobId}.png`);
    return this.#reach(async () => ((await isThere(file)) ? readFile(file) : null));
  }

  /** A step was completed: another machine may have to go on from there. */
  advanced(jobId: string): void {
    this.#inBackground(this.#putCheckpoint(jobId));
  }

  /** Jobs of which something is there: most of them run. None where it does not answer: they are seen the next time. */
  async begun(): Promise<string[]> {
    try {
      const names = [...(await this.#names(CHECKPOINTS_FOLDER)), ...(await this.#names(PREVIEWS_FOLDER))];
      return [...new Set(names.map((name) => name.split('.')[0] as string))];
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
    if (this.#isSaving || nowMs - (this.#savedAtMs.get(jobId) ?? Number.NEGATIVE_INFINITY) < SAVE_MS) return;
    this.#savedAtMs.set(jobId, nowMs);
    this.#isSaving = true;
    await this.#saveCheckpoint(jobId).finally(() => {
      this.#isSaving = false;
    });
  }

  async #saveCheckpoint(jobId: string): Promise<void> {
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

  /** What was kept of a job while it ran. @throws CodedError SHARED_FOLDER_UNREACHABLE */
  async #removeTraces(jobId: string): Promise<void> {
    this.#savedAtMs.delete(jobId);
    for (const folder of [CHECKPOINTS_FOLDER, PREVIEWS_FOLDER]) {
      const names = await this.#names(folder);
      // Also what was only half written.
      await this.#remove(
        folder,
        names.filter((name) => name.startsWith(`${jobId}.`)),
      );
    }
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

  /**
   * Pictures that no job draws over; `wanted` are the SHA-256 of those that one does. One is copied before its job is
   * accepted: what is younger than `ageMs`, by the clock of the folder, may still be wanted.
   * @throws CodedError SHARED_FOLDER_UNREACHABLE
   */
  async removeInputs(wanted: Set<string>, ageMs: number): Promise<void> {
    const unwanted = (await this.#names(INPUTS_FOLDER)).filter((name) => !wanted.has(name.split('.')[0] as string));
    if (unwanted.length === 0) return;
    const pathOf = (name: string) => join(this.#root, INPUTS_FOLDER, name);
    const writtenMs = (name: string) => this.#reach(async () => (await stat(pathOf(name))).mtimeMs);
    const probe = `clock-${randomUUID()}`;
    await this.#reach(() => writeFile(pathOf(probe), ''));
    const nowMs = await writtenMs(probe);
    const old = [probe];
    for (const name of unwanted) if (nowMs - (await writtenMs(name)) > ageMs) old.push(name);
    await this.#remove(INPUTS_FOLDER, old);
  }

  #remove(folder: string, names: string[]): Promise<void> {
    return this.#reach(async () => {
      for (const name of names) await rm(join(this.#root, folder, name), { force: true });
    });
  }

  #names(folder: string): Promise<string[]> {
    return this.#reach(() => readdir(join(this.#root, folder)));
  }

  async #put(file: string, key: string): Promise<void> {
    if (!(await this.#reach(() => isThere(join(this.#root, key))))) await this.#write(file, key);
  }

  #write(file: string, key: string): Promise<void> {
    return this.#reach(async () => {
      const bytes = await readFile(join(this.#dataDir, file)).catch((error: NodeJS.ErrnoException) => {
        // A checkpoint gives way to a newer one at any time.
        if (error.code === 'ENOENT') return null;
        throw error;
      });
      if (bytes !== null) await replaceFile(join(this.#root, key), bytes);
    });
  }

  /**
   * `sha256`: of what is wanted, where it is known. Nothing happens where there is no such file, or another one.
   * @throws CodedError SHARED_FOLDER_UNREACHABLE, DISK_FULL
   */
  async #get(key: string, file: string, sha256: string | null): Promise<void> {
    const to = join(this.#dataDir, file);
    if (await isThere(to)) return;
    const from = join(this.#root, key);
    await this.requireThere();
    const bytes = await this.#reach(async () => ((await isThere(from)) ? readFile(from) : null));
    if (bytes === null) return;
    if (sha256 !== null && createHash('sha256').update(bytes).digest('hex') !== sha256) return;
    await replaceFile(to, bytes).catch((cause: Error) => {
      throw new CodedError('DISK_FULL', cause.message, { cause });
    });
  }

  async #reach<T>(act: () => Promise<T>): Promise<T> {
    if (this.#hanging > 0) throw new CodedError('SHARED_FOLDER_UNREACHABLE', `${this.#root} does not answer`);
    let timer: NodeJS.Timeout | undefined;
    const acting = act();
    const limit = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        // Each that hangs takes one of the few threads that all files, and names of machines, need.
        this.#hanging++;
        const over = () => {
          this.#hanging--;
        };
        acting.then(over, over);
        reject(new Error(`no answer for ${ANSWER_MS / 1000} s`));
      }, ANSWER_MS);
    });
    try {
      return await Promise.race([acting, limit]);
    } catch (cause) {
      throw new CodedError('SHARED_FOLDER_UNREACHABLE', `${this.#root}: ${(cause as Error).message}`, { cause });
    } finally {
      clearTimeout(timer);
    }
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
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
