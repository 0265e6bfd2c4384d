import { accessSync, constants, createReadStream, type Stats, statSync, watch } from 'node:fs';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Command } from 'commander';
import { logFile } from '../machine/data-folder.js';
import { formatLine, hasColours } from '../records/log-line.js';
import { countOf, dataDirOf, withDataDir } from './client.js';
import { unread, versions } from './log-follower.js';

export function addLogs(program: Command): void {
  withDataDir(program.command('logs'))
    .description('show the log of supervisor and children')
    .option('-n, --lines <count>', 'last lines to show', '100')
    .option('-f, --follow', 'go on as the log grows')
    .action((options: { dataDir?: string; lines: string; follow?: boolean }) => logs(options));
}

async function logs(options: { dataDir?: string; lines: string; follow?: boolean }): Promise<void> {
  const file = logFile(dataDirOf(options));
  const count = countOf(options.lines);
  const found = lookAt(file);
  let at = { inode: found.ino, position: found.size };
  const last: string[] = [];
  for await (const line of read(file, 0, at.position)) {
    last.push(line);
    if (last.length > count) last.shift();
  }
  for (const line of last) print(line);
  if (!options.follow) return;
  const readOn = async () => {
    const kept = versions(file);
    for (const { path, from, to } of unread(at, kept)) for await (const line of read(path, from, to)) print(line);
    const [newest] = kept;
    if (newest) at = { inode: newest.inode, position: newest.size };
  };
  // One after the other; the folder, because a watched file is followed when it is set aside.
  let reading = Promise.resolve();
  watch(dirname(file), () => {
    reading = reading.then(readOn);
  });
}

/** @throws CodedError NOT_RUNNING where there is none, DATA_DIR_UNUSABLE where it cannot be read */
function lookAt(file: string): Stats {
  try {
    accessSync(file, constants.R_OK);
    return statSync(file);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT')
      throw new CodedError('NOT_RUNNING', `${file}: no supervisor has written a log here yet`, { cause });
    throw new CodedError('DATA_DIR_UNUSABLE', `${file}: ${(cause as Error).message}`, { cause });
  }
}

function read(file: string, start: number, end: number): AsyncIterable<string> | string[] {
  if (end <= start) return [];
  return createInterface({ input: createReadStream(file, { start, end: end - 1 }) });
}

function print(line: string): void {
  process.stdout.write(`${formatLine(line, hasColours())}\n`);
}
