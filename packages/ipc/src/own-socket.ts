/** Whether a socket is one that we ourselves have made: anybody may put one where others look for theirs. */
import { lstatSync } from 'node:fs';
import { dirname } from 'node:path';

/** Bits of a folder's mode that let others in. */
const OPEN_TO_OTHERS = 0o077;

/** Null for a socket of our own in a folder of our own; else why it is none. Windows has other means. */
export function foreignness(path: string): string | null {
  const uid = process.getuid?.();
  if (uid === undefined) return null;
  const folder = dirname(path);
  const [inFolder, socket] = [folder, path].map((one) => lstatSync(one, { throwIfNoEntry: false }));
  if (!inFolder || !socket) return `${path} is not there`;
  if (!inFolder.isDirectory() || inFolder.uid !== uid) return `${folder} is no folder of yours`;
  if ((inFolder.mode & OPEN_TO_OTHERS) !== 0) return `${folder} is open to other users`;
  if (!socket.isSocket() || socket.uid !== uid) return `${path} is no socket of yours`;
  return null;
}
