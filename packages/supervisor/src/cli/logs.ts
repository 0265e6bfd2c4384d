import { accessSync, constants } from 'node:fs';
import { follow, lastLines } from '@qwen-supervisor/files/log-follower';
import { logFile } from '@qwen-supervisor/protocol/data-files';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Command } from 'commander';
import { formatLine, hasColours } from '../records/log-line.js';
import { countOf, dataDirOf, withDataDir } from './client.js';
import { printPainted } from './printer.js';

export function addLogs(program: Command): void {
  withDataDir(program.command('logs'))
    .description('show the log of supervisor and children')
    .option('-n, --lines <count>', 'last lines to show', '100')
    .option('-f, --follow', 'go on as the log grows')
    .option('--json', 'one JSON object per line, as the log has them')
    .action(logs);
}

async function logs(options: { dataDir?: string; lines: string; follow?: boolean; json?: boolean }): Promise<void> {
  // What is in the log is as harmless as JSON is: control characters are escaped.
  const print = (line: string) => printPainted(options.json ? line.trimEnd() : formatLine(line, hasColours()));
  const file = logFile(dataDirOf(options));
  const count = countOf(options.lines);
  requireReadable(file);
  const { lines, at } = await lastLines(file, count);
  for (const line of lines) print(line);
  if (!options.follow) return;
  await new Promise<never>((_resolve, reject) => {
    follow(file, at, print, reject);
  });
}

/** @throws CodedError NOT_RUNNING where there is none, DATA_DIR_UNUSABLE where it cannot be read */
function requireReadable(file: string): void {
  try {
    accessSync(file, constants.R_OK);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT')
      throw new CodedError('NOT_RUNNING', `${file}: no supervisor has written a log here yet`, { cause });
    throw new CodedError('DATA_DIR_UNUSABLE', `${file}: ${(cause as Error).message}`, { cause });
  }
}
