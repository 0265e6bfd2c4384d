/** Files by which a kernel tells of itself: which of them are there depends on its configuration, and on who asks. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Not there, not ours to read, or of a process that has ended meanwhile. */
const ABSENT = ['ENOENT', 'ENOTDIR', 'EACCES', 'EPERM', 'EINVAL', 'ESRCH'];

/** Empty where there is none. */
export function readKernelFile(path: string): string {
  return orElse('', () => readFileSync(path, 'utf8'));
}

/** Names in a folder; none where there is none. */
export function listKernelFolder(path: string): string[] {
  return orElse([], () => readdirSync(path));
}

/** Where a link leads; empty where there is none. */
export function readKernelLink(path: string): string {
  return orElse('', () => readlinkSync(path));
}

function orElse<T>(absent: T, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (ABSENT.includes((error as NodeJS.ErrnoException).code ?? '')) return absent;
    throw error;
  }
}
