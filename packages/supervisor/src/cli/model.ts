import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { execa } from 'execa';
import { QUIET } from '../processes/spawn-child.js';
import { dataDirOf, withDataDir } from './client.js';

export function addModel(program: Command): void {
  const model = program.command('model').description('look after checkpoints');
  withDataDir(model.command('check'))
    .description('compare what a checkpoint computes here with golden tensors')
    .argument('<folder>', 'checkpoint folder')
    .requiredOption('--golden <folder>', 'folder of golden tensors')
    .option('--json', 'print one JSON object')
    .action((folder: string, options: { dataDir?: string; golden: string; json?: boolean }) => check(folder, options));
}

/** In a process of its own: the command line never loads ONNX Runtime. It reports its errors itself. */
async function check(folder: string, options: { dataDir?: string; golden: string; json?: boolean }): Promise<void> {
  const entry = fileURLToPath(import.meta.resolve('@qwen-supervisor/inference/check-main'));
  const cache = join(dataDirOf(options), 'cache');
  const { exitCode } = await execa(
    process.execPath,
    [entry, folder, options.golden, cache, options.json ? 'json' : 'text'],
    {
      stdio: 'inherit',
      env: QUIET,
      reject: false,
    },
  );
  process.exitCode = exitCode ?? 1;
}
