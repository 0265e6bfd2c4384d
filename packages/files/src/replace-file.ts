/** Files that are whole and durable under their name, or not there. */
import { randomBytes } from 'node:crypto';
import { closeSync, constants, fsyncSync, openSync } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';

/** What a kill leaves of a file that was being written; nobody reads it, and whoever owns the folder removes it. */
export const TEMPORARY = '.tmp';

/**
 * Writes `path` anew: after a crash, a full disk or a power cut it is the old file or the new one. Resolves when it
 * is on the disk; `sync: false` leaves that to the kernel, so that only the death of a process is survived.
 * @throws Error of the file system
 */
export async function replaceFile(path: string, bytes: Uint8Array, { sync = true } = {}): Promise<void> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}${TEMPORARY}`;
  try {
    await withFile(temporary, 'wx', async (file) => {
      await file.writeFile(bytes);
      if (sync) await file.sync();
    });
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  if (sync) await syncFolder(dirname(path));
}

/** A rename is durable when its folder is. Windows has no such call, and its file system needs none. */
export async function syncFolder(folder: string): Promise<void> {
  if (process.platform === 'win32') return;
  await withFile(folder, constants.O_RDONLY | constants.O_DIRECTORY, (file) => file.sync());
}

/** The same, for who writes synchronously. */
export function syncFolderSync(folder: string): void {
  if (process.platform === 'win32') return;
  const opened = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  fsyncSync(opened);
  closeSync(opened);
}

async function withFile(path: string, flags: string | number, act: (file: FileHandle) => Promise<void>): Promise<void> {
  const file = await open(path, flags);
  try {
    await act(file);
  } finally {
    await file.close();
  }
}
