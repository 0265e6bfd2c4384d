import { fileURLToPath } from 'node:url';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Command } from 'commander';
import { execa } from 'execa';
import { QUIET } from '../processes/spawn-child.js';
import { dataDirOf, withDataDir } from './client.js';

type Options = { dataDir?: string; json?: boolean };
interface AddOptions extends Options {
  quantize: string;
  quality: string;
  name?: string;
  checkOnly?: boolean;
  acceptLicense?: boolean;
}

export function addModel(program: Command): void {
  const model = program.command('model').description('look after checkpoints');
  const withOptions = (command: Command) => withDataDir(command).option('--json', 'print one JSON object');
  withOptions(model.command('add'))
    .description('prepare a checkpoint for this machine, once')
    .argument('<folder>', 'checkpoint folder')
    .option('--quantize <precision>', 'int4, int8, or none for float32', 'int8')
    .option('--quality <quality>', 'standard, or best: ten times the time for 3 % less error', 'standard')
    .option('--name <name>', 'what to call it')
    .option('--check-only', 'look at the headers of its files and write nothing')
    .option('--accept-license', 'for a licence that forbids commercial use')
    .action((folder: string, options: AddOptions) => {
      const { quantize, quality, name, checkOnly = false, acceptLicense = false } = options;
      oneOf('--quantize', quantize, ['int4', 'int8', 'none']);
      oneOf('--quality', quality, ['standard', 'best']);
      return look(options, { do: 'add', folder, quantize, quality, name, checkOnly, acceptLicense });
    });
  withOptions(model.command('list'))
    .description('the models that were added')
    .action((options: Options) => look(options, { do: 'list' }));
  for (const [verb, text] of [
    ['show', 'what a model is made of'],
    ['verify', 'compare the prepared weights with their checksums'],
    ['remove', 'remove the prepared weights of a model; its checkpoint stays'],
  ] as const) {
    withOptions(model.command(verb))
      .description(text)
      .argument('<name>', 'name of a model that was added')
      .action((name: string, options: Options) => look(options, { do: verb, name }));
  }
  withOptions(model.command('check'))
    .description('compare what a checkpoint computes here with golden tensors')
    .argument('<model>', 'name of a model that was added, or a checkpoint folder')
    .requiredOption('--golden <folder>', 'folder of golden tensors')
    .action((folder: string, options: Options & { golden: string }) => {
      const format = options.json ? 'json' : 'text';
      return runEntry('@qwen-supervisor/inference/check-main', [folder, options.golden, dataDirOf(options), format]);
    });
}

function oneOf(flag: string, value: string, values: string[]): void {
  if (!values.includes(value))
    throw new CodedError('USAGE_INVALID', `${flag}: '${value}' is none of ${values.join(', ')}`);
}

function look(options: Options, command: object): Promise<void> {
  const whole = { ...command, dataDir: dataDirOf(options), json: options.json ?? false };
  return runEntry('@qwen-supervisor/model/registry/models-main', [JSON.stringify(whole)]);
}

/** In a process of its own: the command line loads neither models nor ONNX Runtime. It reports its errors itself. */
async function runEntry(entry: string, args: string[]): Promise<void> {
  const path = fileURLToPath(import.meta.resolve(entry));
  const { exitCode } = await execa(process.execPath, [path, ...args], { stdio: 'inherit', env: QUIET, reject: false });
  process.exitCode = exitCode ?? 1;
}
