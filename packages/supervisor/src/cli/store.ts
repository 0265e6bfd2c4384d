import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Command } from 'commander';
import { openBlobs } from '../jobs/blobs.js';
import { SharedFiles } from '../jobs/shared-files.js';
import { explained } from './client.js';
import { print, printError } from './printer.js';
import { type Settings, withSettings } from './settings.js';
import { whileWaiting } from './while-waiting.js';

export function addStore(program: Command): void {
  const store = program.command('store').description('the job database that several machines share');
  withSettings(store.command('migrate'))
    .description("make its tables, or bring them up to date; once, on one machine, before 'start'")
    .option('--json', 'print one JSON object')
    .action(async ({ json, ...settings }: Settings) => {
      const { store: url, 'shared-folder': folder, 'data-dir': dataDir } = explained(settings).config;
      if (url === 'sqlite')
        throw new CodedError(
          'USAGE_INVALID',
          "store is 'sqlite', which brings itself up to date: name a shared database with --store postgres://…",
        );
      const { migratePostgres } = await import('../jobs/open-postgres.js');
      if (folder !== '') await new SharedFiles(await openBlobs(folder), dataDir, { warn: printError }).make();
      const changed = await whileWaiting(() => 'the tables are being made', migratePostgres(url));
      const says = changed ? 'the tables were made or changed' : 'the tables are up to date';
      print(json ? JSON.stringify({ changed }) : says);
    });
}
