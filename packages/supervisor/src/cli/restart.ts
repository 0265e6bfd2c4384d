import { CodedError } from '@qwen-supervisor/protocol/errors';
import { CHILD_NAMES, type ChildName } from '@qwen-supervisor/protocol/status';
import type { Command } from 'commander';
import { ask, withDataDir } from './client.js';
import { print } from './printer.js';

export function addRestart(program: Command): void {
  withDataDir(program.command('restart'))
    .description('start a child anew, one that was given up too; jobs are kept')
    .argument('[child]', CHILD_NAMES.join(' or '), 'inference')
    .option('--json', 'print one JSON object')
    .action(async (child: string, options: { dataDir?: string; json?: boolean }) => {
      if (!CHILD_NAMES.includes(child as ChildName)) {
        throw new CodedError('USAGE_INVALID', `'${child}' is no child; there are ${CHILD_NAMES.join(' and ')}`);
      }
      await ask(options, ({ link }) => link.request('restart', { name: child as ChildName }));
      print(options.json ? JSON.stringify({ restarted: child }) : `${child} is being restarted`);
    });
}
