import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Command } from 'commander';
import { ask, dataDirOf, withDataDir } from './client.js';
import { print } from './printer.js';
import { statusLines } from './status-lines.js';

export function addStatus(program: Command): void {
  withDataDir(program.command('status'))
    .description('show what the supervisor and its children do')
    .option('--json', 'the whole status as one JSON object')
    .option('--watch', 'on the whole screen, for as long as you look; q ends it')
    .action(async (options: { dataDir?: string; json?: boolean; watch?: boolean }) => {
      if (options.watch) {
        if (options.json || !process.stdout.isTTY || !process.stdin.isTTY)
          throw new CodedError('USAGE_INVALID', "--watch: needs a terminal; 'qwen-supervisor events -f' is for pipes");
        const { watchStatus } = await import('./watch-status.js');
        return watchStatus(dataDirOf(options));
      }
      const status = await ask(options, ({ link }) => link.request('status', {}), true);
      print(options.json ? JSON.stringify(status) : statusLines(status).join('\n'));
    });
}
