import type { Command } from 'commander';
import { answered, connect, dataDirOf, type Listener, withDataDir } from './client.js';
import { print } from './printer.js';
import { whileWaiting } from './while-waiting.js';

export function addStop(program: Command): void {
  withDataDir(program.command('stop'))
    .description('stop the supervisor; accepted jobs are kept')
    .option('--json', 'print one JSON object')
    .action(async (options: { dataDir?: string; json?: boolean }) => {
      let doing = 'stopping';
      let own: (string | null)[] = [];
      const on: Listener = {
        event(event) {
          if (event.type === 'step' && own.includes(event.jobId))
            doing = `a picture ends first: step ${event.step} of ${event.steps}`;
        },
        missed() {},
        workerFailed() {},
      };
      const { link, pid } = await connect(dataDirOf(options), on, true);
      const closed = new Promise<void>((resolve) => {
        link.onClose = resolve;
      });
      await answered(pid, link.request('stop', {}));
      // The running job may be let end first. A supervisor of another version may know no such request.
      const learn = async () => {
        own = (await link.request('status', {})).children.map(({ job }) => job);
        await link.request('subscribe', { since: null });
      };
      void Promise.allSettled([learn()]);
      await whileWaiting(() => doing, closed);
      print(options.json ? JSON.stringify({ stopped: pid }) : 'stopped');
    });
}
