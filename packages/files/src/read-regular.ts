/**
 * Opens what others have put into a path: a regular file of a bounded size, and nothing else. A pipe, a device or a
 * file without end would be waited for, or read, for ever.
 */
import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from 'node:fs';

/** Windows has neither. A pipe without a writer would keep `open` itself. */
const FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOCTTY ?? 0);

/** Descriptor and facts of a regular file. @throws Error of the file system, or one that says what it is instead */
export function openRegular(path: string): { fd: number; stats: Stats } {
  const fd = openSync(path, FLAGS);
  try {
    const stats = fstatSync(fd);
    if (!stats.isFile()) throw new Error(stats.isDirectory() ? 'is a folder' : 'is no regular file');
    return { fd, stats };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** The content of a regular file of at most `max` bytes. @throws Error of the file system, or for one that is larger */
export function readRegular(path: string, max: number): { bytes: Buffer; stats: Stats } {
  const { fd, stats } = openRegular(path);
  try {
    // Files of some systems say 0 and have more: what is read counts.
    const buffer = Buffer.allocUnsafe(Math.min(stats.size, max) + 1);
    let length = 0;
    for (let count = -1; count !== 0 && length < buffer.length; length += count)
      count = readSync(fd, buffer, length, buffer.length - length, null);
    if (length > max || stats.size > max) throw new Error(`has more than ${max} bytes`);
    return { bytes: buffer.subarray(0, length), stats };
  } finally {
    closeSync(fd);
  }
}
