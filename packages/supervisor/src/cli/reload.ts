import type { Command } from 'commander';
import { ask, withDataDir } from './client.js';
import { print } from './printer.js';

export function addReload(program: Command): void {
  withDataDir(program.command('reload'))
    .description('read the configuration file again, without losing jobs')
    .option('--json', 'print one JSON object')
    .action(async (options: { dataDir?: string; json?: boolean }) => {
      const report = await ask(options, ({ link }) => link.request('reload', {}));
      if (options.json) return print(JSON.stringify(report));
      const { applied, restarted, ignored } = report;
      const lines = [
        applied.length > 0 ? `in force now: ${applied.join(', ')}` : 'nothing to change',
        ...(restarted.length > 0 ? [`restarted for it: ${restarted.join(', ')}`] : []),
        ...(ignored.length > 0 ? [`only after a new start: ${ignored.join(', ')}`] : []),
      ];
      print(lines.join('\n'));
    });
}
