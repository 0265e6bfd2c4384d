import type { Command } from 'commander';
import { connect, dataDirOf, withDataDir } from './client.js';

export function addStop(program: Command): void {
  withDataDir(program.command('stop'))
    .description('stop the supervisor; accepted jobs are kept')
    .action(async (options: { dataDir?: string }) => {
      const { link } = await connect(dataDirOf(options));
      const closed = new Promise<void>((resolve) => {
        link.onClose = resolve;
      });
      await link.request('stop', {});
      await closed;
      console.log('stopped');
    });
}
