import type { NumberedEvent } from '@qwen-supervisor/protocol/events';
import type { Command } from 'commander';
import { answered, connect, dataDirOf, withDataDir } from './client.js';
import { print, printError } from './printer.js';

export function addEvents(program: Command): void {
  withDataDir(program.command('events'))
    .description('show what happens, one JSON object per line')
    .option('-f, --follow', 'go on as it happens')
    .action(async (options: { dataDir?: string; follow?: boolean }) => {
      const { link, pid } = await connect(dataDirOf(options), {
        event: show,
        missed: () => printError('some events were left out: they came faster than they were read'),
        workerFailed() {},
      });
      // What is kept comes before the answer.
      await answered(pid, link.request('subscribe', { since: 0 }));
      if (!options.follow) link.close();
    });
}

/** Previews are pictures: their size will do. */
function show(event: NumberedEvent): void {
  const shown = event.type === 'step' ? { ...event, preview: event.preview?.length ?? null } : event;
  print(JSON.stringify(shown));
}
