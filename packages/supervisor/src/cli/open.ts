import type { Command } from 'commander';
import { execa } from 'execa';
import { ask, withDataDir } from './client.js';
import { print, printError } from './printer.js';

/** What shows an address to a person, by system. */
const OPENERS: Partial<Record<NodeJS.Platform, string>> = { darwin: 'open', linux: 'xdg-open' };

export function addOpen(program: Command): void {
  withDataDir(program.command('open'))
    .description('show the page in a browser')
    .option('--print', 'print its address, and open nothing')
    .option('--json', 'print one JSON object')
    .action(async (options: { dataDir?: string; print?: boolean; json?: boolean }) => {
      const url = await ask(options, async ({ welcome }) => `${welcome.url}/app/`);
      print(options.json ? JSON.stringify({ url }) : url);
      if (options.print) return;
      const opener = process.env.BROWSER || OPENERS[process.platform];
      const opened = opener ? await execa(opener, [url], { stdio: 'ignore', reject: false }) : null;
      if (opened?.exitCode !== 0) printError('no browser could be opened from here: open this address in one yourself');
    });
}
