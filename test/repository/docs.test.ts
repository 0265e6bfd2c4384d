/** Pages that are made from the code. A stale one is written anew and fails the run: commit it. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CONFIG_KEYS, describeKey, environmentName, parseConfig } from '@qwen-supervisor/protocol/config';
import { ERRORS } from '@qwen-supervisor/protocol/errors';
import { parse } from 'smol-toml';
import { describe, expect, test } from 'vitest';
import { REPOSITORY } from '../fixture-files.js';

function errorsPage(): string {
  const rows = Object.entries(ERRORS).map(
    ([code, row]) => `| \`${code}\` | ${row.message} | ${row.hint} | ${row.http} | ${row.exit} | ${row.blame} |`,
  );
  return `# Errors

Made from \`packages/protocol/src/error-table.ts\`. "Who" is who has to act: the caller, the environment, or us.
A command that fails prints \`error CODE: message\` and \`hint: what to do\` to stderr and exits with the code below.

| code | message | what to do | HTTP | exit | who |
|---|---|---|---|---|---|
${rows.join('\n')}
`;
}

function exampleConfig(): string {
  const entries = CONFIG_KEYS.map((key) => {
    const { doc, default: value } = describeKey(key);
    const shown = value === undefined ? `# ${key} = ""` : `# ${key} = ${JSON.stringify(value)}`;
    return `# ${doc}.\n# Also --${key} and ${environmentName(key)}.\n${shown}\n`;
  });
  return `# All settings of qwen-supervisor, with their defaults. Made from packages/protocol/src/config.ts.
# Use it with: qwen-supervisor start --config FILE. Flags win over the environment, it over this file.

${entries.join('\n')}`;
}

describe('generated pages are up to date', () => {
  test.each([
    ['docs/errors.md', errorsPage],
    ['config/qwen-supervisor.toml', exampleConfig],
  ])('%s', (file, make) => {
    const path = join(REPOSITORY, file);
    const now = existsSync(path) ? readFileSync(path, 'utf8') : '';
    if (now !== make()) writeFileSync(path, make());
    expect(now, 'it was stale and has been written anew').toBe(make());
  });
});

test('the example configuration is valid with every line switched on', () => {
  const toml = exampleConfig()
    .replace(/^# ([a-z-]+ = )""/gm, '$1"x"')
    .replace(/^# ([a-z-]+ = )/gm, '$1');
  expect(parseConfig([{ name: 'example', values: parse(toml) }])).toMatchObject({ port: 8000, 'max-steps': 1000 });
});

test('exit codes tell what went wrong: none is 0, none means "killed by a signal"', () => {
  for (const row of Object.values(ERRORS)) {
    expect(row.exit).toBeGreaterThan(2);
    expect(row.exit).toBeLessThan(126);
  }
});

test('every path in the README tree exists', () => {
  const tree = /```text\n([\s\S]*?)```/.exec(readFileSync(join(REPOSITORY, 'README.md'), 'utf8'))?.[1] ?? '';
  const stack: string[] = [];
  const missing: string[] = [];
  for (const line of tree.split('\n').filter(Boolean)) {
    const depth = (/^ */.exec(line)?.[0].length ?? 0) / 2;
    const name = line.trim().split(/\s/)[0] as string;
    stack.splice(depth, stack.length, name);
    if (!existsSync(join(REPOSITORY, ...stack))) missing.push(stack.join('/'));
  }
  expect(tree).not.toBe('');
  expect(missing).toEqual([]);
});

test('links between pages lead somewhere', () => {
  for (const page of [
    'README.md',
    'docs/http-api.md',
    'docs/architecture.md',
    'docs/operations.md',
    'docs/model-check.md',
    'docs/gpu.md',
  ]) {
    for (const [, target] of readFileSync(join(REPOSITORY, page), 'utf8').matchAll(/\]\((?!http|#)([^)#]+)/g)) {
      expect(existsSync(join(REPOSITORY, page, '..', target as string)), `${page}: ${target}`).toBe(true);
    }
  }
});
