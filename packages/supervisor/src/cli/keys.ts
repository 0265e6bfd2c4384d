import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Command } from 'commander';
import { addKey, listKeys, removeKey } from '../config/keys-file.js';
import { configOf, withDataDir } from './client.js';
import { print, printError } from './printer.js';

interface Options {
  dataDir?: string;
  keysFile?: string;
  admin?: boolean;
  json?: boolean;
}

export function addKeys(program: Command): void {
  const keys = program.command('keys').description('who may call the API: a key for each person or program');
  const withFile = (command: Command) =>
    withDataDir(command).option('--keys-file <file>', 'the file of keys; that of the configuration if left out');

  withFile(keys.command('add'))
    .description('make a key, add it to the file and print it, once')
    .argument('<name>', 'whose it is')
    .option('--admin', 'one that may also restart and stop')
    .option('--json', 'print one JSON object')
    .action(async (name: string, options: Options) => {
      if (!/^\S(.*\S)?$/.test(name)) throw new CodedError('USAGE_INVALID', `'${name}' is no name`);
      const path = pathOf(options);
      const role = options.admin ? 'admin' : 'use';
      const key = await addKey(path, role, name);
      print(options.json ? JSON.stringify({ key, role, name, file: path }) : key);
      printError(`added to ${path}; ${IN_FORCE}`);
    });

  withFile(keys.command('list'))
    .description('whose keys there are; the keys themselves are not shown')
    .option('--json', 'one JSON object per line')
    .action((options: Options) => {
      for (const { id, role, name } of listKeys(pathOf(options)))
        print(options.json ? JSON.stringify({ id, role, name }) : `${id}  ${role.padEnd(5)}  ${name}`);
    });

  withFile(keys.command('remove'))
    .description('take a key out of the file')
    .argument('<name-or-id>')
    .option('--json', 'print one JSON object')
    .action(async (nameOrId: string, options: Options) => {
      await removeKey(pathOf(options), nameOrId);
      print(options.json ? JSON.stringify({ removed: nameOrId }) : `removed; ${IN_FORCE}`);
    });
}

const IN_FORCE = "a supervisor that runs knows of it after 'qwen-supervisor reload'";

/** @throws CodedError USAGE_INVALID, CONFIG_* */
function pathOf(options: Options): string {
  const { keysFile } = options;
  const path = configOf(options, keysFile === undefined ? {} : { 'keys-file': keysFile })['keys-file'];
  if (path === '')
    throw new CodedError(
      'USAGE_INVALID',
      "no file of keys is configured: name one with --keys-file, and so for 'start'",
    );
  return path;
}
