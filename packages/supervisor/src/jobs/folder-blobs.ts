/** Blobs in a folder that all machines have mounted. */
import { randomUUID } from 'node:crypto';
import { access, constants, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { replaceFile } from '@qwen-supervisor/files/replace-file';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Blobs } from './blobs.js';

/** A folder of the network that is gone may hang for ever, and be there again a moment later. */
const ANSWER_MS = 10_000;

export class FolderBlobs implements Blobs {
  readonly #root: string;
  /** What was asked of it and has not been answered, long after it should have been. */
  #hanging = 0;

  constructor(root: string) {
    this.#root = root;
  }

  /** Where they are not there later the folder is not mounted, and nothing may be written to the disk below. */
  async make(folders: readonly string[]): Promise<void> {
    for (const folder of folders)
      await this.#reach(async () => {
        const path = join(this.#root, folder);
        if (!(await isThere(path))) await mkdir(path);
      });
  }

  async requireThere(folders: readonly string[]): Promise<void> {
    for (const folder of folders)
      await this.#reach(() => access(join(this.#root, folder), constants.R_OK | constants.W_OK));
  }

  put(key: string, bytes: Uint8Array): Promise<void> {
    return this.#reach(() => replaceFile(join(this.#root, key), bytes));
  }

  get(key: string): Promise<Buffer | null> {
    const path = join(this.#root, key);
    return this.#reach(async () => ((await isThere(path)) ? readFile(path) : null));
  }

  has(key: string): Promise<boolean> {
    return this.#reach(() => isThere(join(this.#root, key)));
  }

  async list(folder: string, beginning: string): Promise<string[]> {
    const names = await this.#reach(() => readdir(join(this.#root, folder)));
    return names.filter((name) => name.startsWith(beginning));
  }

  async ages(folder: string, names: readonly string[]): Promise<Map<string, number>> {
    const ages = new Map<string, number>();
    if (names.length === 0) return ages;
    const pathOf = (name: string) => join(this.#root, folder, name);
    const writtenMs = (name: string) => this.#reach(() => modifiedMs(pathOf(name)));
    const probe = `clock-${randomUUID()}`;
    await this.#reach(() => writeFile(pathOf(probe), ''));
    const nowMs = await writtenMs(probe);
    await this.remove([`${folder}/${probe}`]);
    for (const name of names) {
      const atMs = await writtenMs(name);
      if (nowMs !== null && atMs !== null) ages.set(name, nowMs - atMs);
    }
    return ages;
  }

  async remove(keys: readonly string[]): Promise<void> {
    for (const key of keys) await this.#reach(() => rm(join(this.#root, key), { force: true }));
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

/** Null where it is gone: others remove things, too. */
async function modifiedMs(path: string): Promise<number | null> {
  try {
    return (await stat(path)).mtimeMs;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
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
