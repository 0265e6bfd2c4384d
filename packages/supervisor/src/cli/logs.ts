import { createReadStream, existsSync, statSync, watch } from 'node:fs';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Command } from 'commander';
import { logFile } from '../machine/data-folder.js';
import { formatLine } from '../records/log-line.js';
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
  if (!existsSync(file)) throw new CodedError('NOT_RUNNING', `${file}: no supervisor has written a log here yet`);
  let at = { inode: statSync(file).ino, position: statSync(file).size };
  const last: string[] = [];
  for await (const line of read(file, 0, at.position)) {
    last.push(line);
    if (last.length > count) last.shift();
  }
  for (const line of last) print(line);
  if (!options.follow) return;
  const readOn = async () => {
    const found = versions(file);
    for (const { path, from, to } of unread(at, found)) for await (const line of read(path, from, to)) print(line);
    const [newest] = found;
    if (newest) at = { inode: newest.inode, position: newest.size };
  };
  // One after the other; the folder, because a watched file is followed when it is set aside.
  let reading = Promise.resolve();
  watch(dirname(file), () => {
    reading = reading.then(readOn);
  });
}

function read(file: string, start: number, end: number): AsyncIterable<string> | string[] {
  if (end <= start) return [];
  return createInterface({ input: createReadStream(file, { start, end: end - 1 }) });
}

function print(line: string): void {
  process.stdout.write(`${formatLine(line, process.stdout.isTTY ?? false)}\n`);
}
