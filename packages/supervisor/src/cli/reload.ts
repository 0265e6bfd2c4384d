import type { Command } from 'commander';
import { connect, dataDirOf, withDataDir } from './client.js';

export function addReload(program: Command): void {
  withDataDir(program.command('reload'))
    .description('read the configuration file again, without losing jobs')
    .action(async (options: { dataDir?: string }) => {
      const { link } = await connect(dataDirOf(options));
      const { applied, restarted, ignored } = await link.request('reload', {});
      link.close();
      const lines = [
        applied.length > 0 ? `in force now: ${applied.join(', ')}` : 'nothing to change',
        ...(restarted.length > 0 ? [`restarted for it: ${restarted.join(', ')}`] : []),
        ...(ignored.length > 0 ? [`only after a new start: ${ignored.join(', ')}`] : []),
      ];
      console.log(lines.join('\n'));
    });
}
