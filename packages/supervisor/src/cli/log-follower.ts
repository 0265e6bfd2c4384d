/** What of a log that is set aside when it is large has not been read yet. Pure, but for the look at the folder. */
import { statSync } from 'node:fs';

/** Where reading has come to: the file by its inode, because its name changes when it is set aside. */
export interface Position {
  inode: number;
  position: number;
}

interface Version {
  path: string;
  inode: number;
  size: number;
}

export interface Piece {
  path: string;
  from: number;
  to: number;
}

/** The log and those set aside, newest first, as they lie there now. */
export function versions(file: string): Version[] {
  const found: Version[] = [];
  for (const path of [file, ...[1, 2, 3].map((generation) => `${file}.${generation}`)]) {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat) found.push({ path, inode: stat.ino, size: stat.size });
  }
  return found;
}

/** Oldest first: the rest of the file that was read last, then all that are newer. */
export function unread(at: Position, found: readonly Version[]): Piece[] {
  const index = found.findIndex(({ inode }) => inode === at.inode);
  // What was read last is gone: all that is there came after it.
  const newer = index < 0 ? [...found] : found.slice(0, index + 1);
  return newer
    .toReversed()
    .map(({ path, inode, size }) => ({ path, from: inode === at.inode ? at.position : 0, to: size }))
    .filter(({ from, to }) => to > from);
}
