import { writeSync } from 'node:fs';

/** Writes all of `bytes` at `position`: one call of the system may write less. @throws Error of the file system */
export function writeAll(fd: number, bytes: Uint8Array, position: number): void {
  let done = 0;
  while (done < bytes.length) done += writeSync(fd, bytes, done, bytes.length - done, position + done);
}
