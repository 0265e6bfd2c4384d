import { EXAMPLES } from '@qwen-supervisor/supervisor/cli/examples';
import { commandLine } from '@qwen-supervisor/supervisor/cli/main';
import type { Command } from 'commander';
import { expect, test } from 'vitest';

const program = await commandLine();

function leaves(command: Command, path: string[] = []): [string, Command][] {
  if (command.commands.length === 0) return [[path.join(' '), command]];
  return command.commands.flatMap((sub) => leaves(sub, [...path, sub.name()]));
}
const commands = new Map(leaves(program));

test('the help of every command has an example', () => {
  const without = [...commands.keys()].filter(
    (path) => path !== 'completion' && !EXAMPLES.some(([example]) => `${example} `.startsWith(`${path} `)),
  );
  expect(without).toEqual([]);
});

test.each(EXAMPLES)('qwen-supervisor %s', (example) => {
  const [path = '', command] = [...commands].find(([name]) => `${example} `.startsWith(`${name} `)) ?? [];
  expect(command, 'there is such a command').toBeDefined();
  const words = example.slice(path.length).split(/\s+/);
  const flags = words.filter((word) => /^--?[a-z]/.test(word));
  const known = command?.options.flatMap(({ long, short }) => [long, short]);
  expect(flags.filter((flag) => !known?.includes(flag))).toEqual([]);
});
