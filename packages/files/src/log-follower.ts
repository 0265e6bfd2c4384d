/** A log that is set aside when it is large, read as it grows. */
import { createReadStream, statSync, watch } from 'node:fs';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';

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

/** The last `count` lines of the log. @throws the error of the file where there is none, or it cannot be read */
export async function lastLines(file: string, count: number): Promise<{ lines: string[]; at: Position }> {
  const { ino: inode, size: position } = statSync(file);
  const lines: string[] = [];
  for await (const line of read({ path: file, from: 0, to: position })) {
    lines.push(line);
    if (lines.length > count) lines.shift();
  }
  return { lines, at: { inode, position } };
}

/**
 * Gives every line that comes after `at`, until the returned function is called; `onEnd` where it cannot be read on.
 * @throws the error of the system where it watches no more files
 */
export function follow(
  file: string,
  at: Position,
  onLine: (line: string) => void,
  onEnd: (error: Error) => void,
): () => void {
  let [position, isOver] = [at, false];
  const readOn = async () => {
    const kept = versions(file);
    for (const piece of unread(position, kept)) for await (const line of read(piece)) if (!isOver) onLine(line);
    const [newest] = kept;
    if (newest) position = { inode: newest.inode, position: newest.size };
  };
  // The folder, because a watched file is followed when it is set aside.
  const watcher = watch(dirname(file), () => {
    reading = reading.then(readOn).catch(end);
  });
  const stop = () => {
    isOver = true;
    watcher.close();
  };
  const end = (error: Error) => {
    if (!isOver) onEnd(error);
    stop();
  };
  watcher.on('error', end);
  // One after the other.
  let reading = readOn().catch(end);
  return stop;
}

function read({ path, from, to }: Piece): AsyncIterable<string> | string[] {
  if (to <= from) return [];
  return createInterface({ input: createReadStream(path, { start: from, end: to - 1 }) });
}
