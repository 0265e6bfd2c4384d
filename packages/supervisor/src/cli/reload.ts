import type { Command } from 'commander';
import { ask, withDataDir } from './client.js';
import { print } from './printer.js';

export function addReload(program: Command): void {
  withDataDir(program.command('reload'))
    .description('read the configuration file again, without losing jobs')
    .action(async (options: { dataDir?: string }) => {
      const { applied, restarted, ignored } = await ask(options, ({ link }) => link.request('reload', {}));
      const lines = [
        applied.length > 0 ? `in force now: ${applied.join(', ')}` : 'nothing to change',
        ...(restarted.length > 0 ? [`restarted for it: ${restarted.join(', ')}`] : []),
        ...(ignored.length > 0 ? [`only after a new start: ${ignored.join(', ')}`] : []),
      ];
      print(lines.join('\n'));
    });
}
