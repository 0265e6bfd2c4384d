/** Pages that are made from the code. A stale one is written anew and fails the run: commit it. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildApp } from '@qwen-supervisor/api/app';
import {
  CONFIG_KEYS,
  configJsonSchema,
  describeKey,
  environmentName,
  parseConfig,
  takesEffect,
  WHEN,
} from '@qwen-supervisor/protocol/config';
import { ERRORS } from '@qwen-supervisor/protocol/errors';
import { MESSAGES } from '@qwen-supervisor/protocol/message-schemas';
import { commandLine } from '@qwen-supervisor/supervisor/cli/main';
import type { Command } from 'commander';
import { parse } from 'smol-toml';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { fakeBackend } from '../api/fake-backend.js';
import { REPOSITORY } from '../fixture-files.js';

function errorsPage(): string {
  const sections = Object.entries(ERRORS).map(([code, { message, hint, http, exit, blame, retryable }]) => {
    const facts = [`HTTP ${http}`, `exit code ${exit}`, WHO[blame], ...(retryable ? ['may pass by itself'] : [])];
    return `## ${code}\n\n${sentence(message)} **What to do:** ${hint}.\n\n${facts.join(' · ')}\n`;
  });
  return `# Errors

Made from \`packages/protocol/src/error-table.ts\`. A command that fails prints \`error CODE: message\` and \`hint: what to do\` to
stderr and exits with the code's exit code; an HTTP answer has the same three in the shape of its dialect.

${sections.join('\n')}`;
}

const WHO = { caller: 'the caller has to act', environment: 'the operator has to act', us: 'a fault of ours' };

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

function exampleConfig(): string {
  const entries = CONFIG_KEYS.map((key) => {
    const { doc, default: value } = describeKey(key);
    const shown = value === undefined ? `# ${key} = ""` : `# ${key} = ${JSON.stringify(value)}`;
    return `# ${doc}.\n# ${WHEN[takesEffect(key)]}. Also --${key} and ${environmentName(key)}.\n${shown}\n`;
  });
  return `#:schema ./qwen-supervisor.schema.json
# All settings of qwen-supervisor, with their defaults. Made from packages/protocol/src/config.ts.
# Use it with: qwen-supervisor start --config FILE. Flags win over the environment, it over this file.

${entries.join('\n')}`;
}

async function commandsPage(): Promise<string> {
  const section = (command: Command, path: string[]): string => {
    const words = ['qwen-supervisor', ...path].join(' ');
    if (command.commands.length > 0)
      return command.commands.map((sub) => section(sub, [...path, sub.name()])).join('\n');
    const taken = command.registeredArguments.map((one) => (one.required ? `<${one.name()}>` : `[${one.name()}]`));
    const hasSettings = command.options.some(({ long }) => long === '--max-steps');
    const flags = command.options
      .filter(({ long }) => (hasSettings ? !SETTINGS.includes(String(long)) : long !== '--data-dir'))
      .map((option) => `| \`${option.flags}\` | ${option.description.replaceAll('|', '\\|')} |`);
    const settings = hasSettings
      ? ['| all settings | [config/qwen-supervisor.toml](../config/qwen-supervisor.toml) |']
      : [];
    const table = [...flags, ...settings];
    const rows = table.length > 0 ? `\n| flag | |\n|---|---|\n${table.join('\n')}\n` : '';
    return `## ${path.join(' ')}\n\n\`${[words, ...taken].join(' ')}\`: ${command.description()}.\n${rows}`;
  };
  return `# Commands

Made from \`packages/supervisor/src/cli\`. \`qwen-supervisor COMMAND --help\` says the same, with examples; \`qwen-supervisor completion bash\` lets the shell complete it. Every command takes \`--data-dir\`.

${section(await commandLine(), [])}`;
}

async function routesPage(): Promise<string> {
  const app = await buildApp(fakeBackend());
  await app.ready();
  interface Operation {
    tags?: string[];
    summary?: string;
    responses?: Record<string, unknown>;
  }
  const { paths = {} } = app.swagger() as { paths?: Record<string, Record<string, Operation>> };
  const rows = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { tags = [], summary = '', responses = {} }]) => ({
      tag: tags[0] ?? 'other',
      statuses: Object.keys(responses),
      row: `| \`${method.toUpperCase()} ${path}\` | ${summary.replaceAll('|', '\\|')} |`,
    })),
  );
  await app.close();
  const common = rows[0]?.statuses.filter((status) => rows.every(({ statuses }) => statuses.includes(status))) ?? [];
  const tags = [...new Set(rows.map(({ tag }) => tag))];
  const sections = tags.map((tag) => {
    const own = rows
      .filter((one) => one.tag === tag)
      .map(({ row, statuses }) => `${row} ${statuses.filter((status) => !common.includes(status)).join(', ')} |`);
    return `## ${tag}\n\n| route | | answers |\n|---|---|---|\n${own.join('\n')}\n`;
  });
  return `# Routes

Made from the routes in \`packages/api/src\`. A server shows them with every field at \`/docs\`, and for programs at \`/openapi.json\`; [http-api.md](http-api.md) says what they
are for. Any of them may also answer ${common.join(', ')}: [errors.md](errors.md).

${sections.join('\n')}`;
}

/** A shape as TypeScript would write it. */
function typeOf(schema: JsonSchema): string {
  const either = schema.anyOf ?? schema.oneOf;
  if (either) return [...new Set(either.map(typeOf))].join(' \\| ');
  if (Array.isArray(schema.type)) return schema.type.join(' \\| ');
  if (schema.enum) return schema.enum.length > 12 ? 'a code' : schema.enum.map((one) => `'${one}'`).join(' \\| ');
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === 'array') return `${typeOf(schema.items ?? {})}[]`;
  if (schema.type !== 'object') return schema.type ?? 'bytes';
  const fields = Object.entries(schema.properties ?? {}).map(([name, field]) => {
    const optional = schema.required?.includes(name) ? '' : '?';
    return `${name}${optional}: ${typeOf(field)}`;
  });
  return fields.length === 0 ? 'nothing' : `{ ${fields.join('; ')} }`;
}

interface JsonSchema {
  type?: string | string[];
  anyOf?: JsonSchema[];
  oneOf?: JsonSchema[];
  enum?: unknown[];
  const?: unknown;
  items?: JsonSchema;
  properties?: Record<string, JsonSchema>;
  required?: string[];
}

function ipcPage(): string {
  const rows = Object.entries(MESSAGES).map(([method, schema]) => {
    const json = z.toJSONSchema(schema as z.ZodType, { io: 'input', unrepresentable: 'any' }) as JsonSchema;
    return `| \`${method}\` | ${typeOf(json).replaceAll('<', '&lt;')} |`;
  });
  return `# Messages between processes

Made from \`packages/protocol/src/message-schemas.ts\`: what the supervisor takes from its children and from commands, over its control socket. Everything else that is sent there closes the
connection. What each answers, and what it sends unasked, is in \`packages/protocol/src/messages.ts\`; how they are framed in [decision 3](decisions/0003-node-ipc.md).

| method | takes |
|---|---|
${rows.join('\n')}
`;
}

const SETTINGS = [...CONFIG_KEYS.map((key) => `--${key}`), '--config'];

test('every command that a page names is there, with its flags', async () => {
  const program = await commandLine();
  const unknown: string[] = [];
  for (const page of ['README.md', 'CONTRIBUTING.md', 'SECURITY.md', ...below('docs')]) {
    for (const [, words = ''] of read(page).matchAll(/(?:^|[`$'( ])qwen-supervisor ([a-z][^`\n|']*)/gm)) {
      let command = program;
      const parts = words
        .trim()
        .replace(/[.,;:]$/, '')
        .split(/\s+/);
      while (parts.length > 0) {
        const sub = command.commands.find((one) => one.name() === parts[0]);
        if (!sub) break;
        command = sub;
        parts.shift();
      }
      if (command.name() === 'qwen-supervisor' || command.commands.length > 0) unknown.push(`${page}: ${words}`);
      const known = command.options.flatMap(({ long, short }) => [long, short, '--help']);
      for (const flag of parts.filter((part) => /^--?[a-z]/.test(part)).map((part) => part.replace(/[^-\w].*$/, '')))
        if (!known.includes(flag)) unknown.push(`${page}: ${words}: ${flag}`);
    }
  }
  expect(unknown).toEqual([]);
});

describe('generated pages are up to date', () => {
  test.each([
    ['docs/errors.md', errorsPage],
    ['docs/commands.md', commandsPage],
    ['docs/routes.md', routesPage],
    ['docs/ipc.md', ipcPage],
    ['config/qwen-supervisor.toml', exampleConfig],
    ['config/qwen-supervisor.schema.json', () => `${JSON.stringify(configJsonSchema(), null, 2)}\n`],
  ])('%s', async (file, make) => {
    const path = join(REPOSITORY, file);
    const now = existsSync(path) ? readFileSync(path, 'utf8') : '';
    const made = await make();
    if (now !== made) writeFileSync(path, made);
    expect(now, 'it was stale and has been written anew').toBe(made);
  });
});

test('the example configuration is valid with every line switched on', () => {
  const toml = exampleConfig()
    .replace(/^# (path-prefix = )""/gm, '$1"/x"')
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
  const pages = [
    'README.md',
    'CONTRIBUTING.md',
    'CHANGELOG.md',
    'SECURITY.md',
    ...below('docs'),
    ...below('docs/decisions'),
  ];
  for (const page of pages) {
    for (const [, path = '', anchor] of read(page).matchAll(/\]\((?!http)([^)#]*)(?:#([^)]*))?\)/g)) {
      const target = path === '' ? page : join(page, '..', path);
      expect(existsSync(join(REPOSITORY, target)), `${page}: ${path}`).toBe(true);
      if (anchor !== undefined) expect(anchorsOf(target), `${page}: ${target}#${anchor}`).toContain(anchor);
    }
  }
});

const read = (page: string) => readFileSync(join(REPOSITORY, page), 'utf8');

function below(folder: string): string[] {
  const names = readdirSync(join(REPOSITORY, folder));
  return names.filter((name) => name.endsWith('.md')).map((name) => `${folder}/${name}`);
}

/** As the hosts of repositories make them of headings. */
function anchorsOf(page: string): string[] {
  return [...read(page).matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\w\s-]/g, '')
      .replaceAll(' ', '-'),
  );
}

test('every error that the table has can be met: it is raised somewhere', () => {
  const folders = readdirSync(join(REPOSITORY, 'packages')).map((name) => join(REPOSITORY, 'packages', name, 'src'));
  const sources = folders.filter(existsSync).flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts') && !name.endsWith('error-table.ts'))
      .map((name) => readFileSync(join(folder, name), 'utf8')),
  );
  const text = [...sources, readFileSync(join(REPOSITORY, 'bin/qwen-supervisor.js'), 'utf8')].join('\n');
  expect(Object.keys(ERRORS).filter((code) => !new RegExp(`\\b${code}\\b`).test(text))).toEqual([]);
});
