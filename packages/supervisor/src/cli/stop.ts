import type { Command } from 'commander';
import { answered, connect, dataDirOf, withDataDir } from './client.js';
import { print } from './printer.js';

export function addStop(program: Command): void {
  withDataDir(program.command('stop'))
    .description('stop the supervisor; accepted jobs are kept')
    .option('--json', 'print one JSON object')
    .action(async (options: { dataDir?: string; json?: boolean }) => {
      const { link, pid } = await connect(dataDirOf(options), undefined, true);
      const closed = new Promise<void>((resolve) => {
        link.onClose = resolve;
      });
      await answered(pid, link.request('stop', {}));
      // The running job may be let end first.
      await closed;
      print(options.json ? JSON.stringify({ stopped: pid }) : 'stopped');
    });
}
