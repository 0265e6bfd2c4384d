import type { Command } from 'commander';
import { ask, withDataDir } from './client.js';
import { print } from './printer.js';

export function addStop(program: Command): void {
  withDataDir(program.command('stop'))
    .description('stop the supervisor; accepted jobs are kept')
    .action(async (options: { dataDir?: string }) => {
      await ask(
        options,
        async ({ link }) => {
          const closed = new Promise<void>((resolve) => {
            link.onClose = resolve;
          });
          await link.request('stop', {});
          await closed;
        },
        true,
      );
      print('stopped');
    });
}
