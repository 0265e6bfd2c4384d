import { existsSync } from 'node:fs';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Crash } from '@qwen-supervisor/protocol/status';
import type { Command } from 'commander';
import { readCrashes } from '../records/crash-log.js';
import { countOf, dataDirOf, withDataDir } from './client.js';
import { print } from './printer.js';

export function addCrashes(program: Command): void {
  withDataDir(program.command('crashes'))
    .description('show how children ended that should not have')
    .option('-n, --lines <count>', 'last crashes to show', '10')
    .option('--json', 'one JSON object per line')
    .action((options: { dataDir?: string; lines: string; json?: boolean }) => {
      const dataDir = dataDirOf(options);
      if (!existsSync(dataDir)) throw new CodedError('DATA_DIR_UNUSABLE', `${dataDir}: there is no such folder`);
      const crashes = readCrashes(dataDir, countOf(options.lines));
      if (options.json) for (const crash of crashes) print(JSON.stringify(crash));
      else print(crashes.length === 0 ? 'no crashes' : crashes.map(describe).join('\n\n'));
    });
}

function describe({ at, child, pid, cause, during, uptimeSeconds, job, reason, tail }: Crash): string {
  const lines = [
    `${at}  ${child} (pid ${pid ?? '-'}): ${cause} while ${during}, after ${uptimeSeconds} s`,
    `  ${reason}`,
    ...(job ? [`  in its hands: ${job.id}, attempt ${job.attempt}, after step ${job.step}`] : []),
    ...(tail.length > 0 ? ['  last output:', ...tail.map((line) => `    ${line}`)] : []),
  ];
  return lines.join('\n');
}
