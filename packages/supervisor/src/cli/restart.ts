import { CodedError } from '@qwen-supervisor/protocol/errors';
import { CHILD_NAME_PATTERN, type ChildName } from '@qwen-supervisor/protocol/status';
import type { Command } from 'commander';
import { ask, withDataDir } from './client.js';
import { print } from './printer.js';

export function addRestart(program: Command): void {
  withDataDir(program.command('restart'))
    .description('start a child anew, one that was given up too; jobs are kept')
    .argument('[child]', 'inference or api; of several workers inference-2, inference-3, …', 'inference')
    .option('--json', 'print one JSON object')
    .action(async (child: string, options: { dataDir?: string; json?: boolean }) => {
      if (!CHILD_NAME_PATTERN.test(child))
        throw new CodedError('USAGE_INVALID', `'${child}' is no child; there are inference and api`);
      await ask(options, ({ link }) => link.request('restart', { name: child as ChildName }));
      print(options.json ? JSON.stringify({ restarted: child }) : `${child} is being restarted`);
    });
}
