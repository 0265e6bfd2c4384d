/** Rules of the house that no linter knows. Each failure says what to do instead. */
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import { expect, test } from 'vitest';
import { REPOSITORY } from '../fixture-files.js';

const PACKAGES = readdirSync(join(REPOSITORY, 'packages')).filter((name) => name !== 'pocket-model');
const sources = filesBelow('packages').filter((file) => /\/src\/.*\.tsx?$/.test(file));
const all = [
  ...sources,
  ...filesBelow('test').filter((file) => file.endsWith('.ts')),
  ...filesBelow('docs'),
  'README.md',
  'package.json',
];
const read = (file: string) => readFileSync(join(REPOSITORY, file), 'utf8');

function filesBelow(folder: string): string[] {
  return readdirSync(join(REPOSITORY, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !/node_modules|dist|fixtures/.test(entry.parentPath))
    .map((entry) => relative(REPOSITORY, join(entry.parentPath, entry.name)));
}

/** Lines of `files` that match, as `file:line`. */
function find(files: string[], pattern: RegExp): string[] {
  return files.flatMap((file) =>
    read(file)
      .split('\n')
      .flatMap((line, i) => (pattern.test(line) ? [`${file}:${i + 1}: ${line.trim()}`] : [])),
  );
}

/** What a package may import of ours. A new direction is a decision: write it down in docs/decisions. */
const MAY_IMPORT: Record<string, string[]> = {
  protocol: [],
  files: ['protocol'],
  ipc: ['protocol'],
  model: ['protocol', 'files'],
  inference: ['protocol', 'files', 'ipc', 'model'],
  supervisor: ['protocol', 'files', 'ipc', 'model'],
  api: ['protocol', 'files', 'ipc'],
  web: ['protocol'],
};

test.each(PACKAGES)('package %s imports only what it may', (name) => {
  const own = sources.filter((file) => file.startsWith(`packages/${name}/`));
  const imported = new Set(
    own.flatMap((file) => [...read(file).matchAll(/from '@qwen-supervisor\/(\w+)/g)].map((m) => m[1])),
  );
  expect([...imported].filter((other) => other !== name && !MAY_IMPORT[name]?.includes(String(other)))).toEqual([]);
});

test('the supervisor loads neither ONNX Runtime nor fastify', () => {
  expect(
    find(
      sources.filter((file) => file.startsWith('packages/supervisor/')),
      /from '(onnxruntime-node|fastify|sharp)/,
    ),
  ).toEqual([]);
});

test('the core is pure: it imports itself and protocol alone; time, chance and the system arrive as arguments', () => {
  const core = sources.filter((file) => file.startsWith('packages/supervisor/src/core/'));
  expect(core.length).toBeGreaterThan(0);
  expect(find(core, /Date\.now|new Date|Math\.random|process\.|performance\.|setTimeout/)).toEqual([]);
  const foreign = core.flatMap((file) =>
    [...read(file).matchAll(/(?:from|import) ?\(?'([^']+)'/g)]
      .map(([, from]) => from as string)
      .filter((from) => !/^\.\/[\w-]+\.js$|^@qwen-supervisor\/protocol\//.test(from))
      .map((from) => `${file}: ${from}`),
  );
  expect(foreign).toEqual([]);
});

test('protocol runs in a browser', () => {
  expect(
    find(
      sources.filter((file) => file.startsWith('packages/protocol/')),
      /from 'node:|process\.|Buffer/,
    ),
  ).toEqual([]);
});

test('files are short: 400 lines at most', () => {
  expect(all.filter((file) => file.endsWith('.ts') && read(file).split('\n').length > 400)).toEqual([]);
});

test('comments are no wider than code: 120 characters', () => {
  expect(
    find(
      all.filter((file) => file.endsWith('.ts')),
      /^(?=\s*(\/\*\*|\*|\/\/)).{121,}$/,
    ),
  ).toEqual([]);
});

test('names say what a thing is, not that it helps', () => {
  const bad = /manager|helper|util|common|misc|enhanced|robust|optimized|fixed|v2/;
  expect(all.filter((file) => bad.test(basename(file)))).toEqual([]);
});

test('nothing is silently caught, and nothing is left to do later', () => {
  const swallowed = /catch(\s*\([^)]*\))?\s*\{\s*\}|\.catch\(\(\) => (\{\}|undefined|null)\)/;
  expect(find(sources, new RegExp(`${swallowed.source}|TODO|FIXME|XXX`))).toEqual([]);
});

test('a listener for errors that does nothing has its reason above it', () => {
  const silent = find(sources, /on\('error', \(\) => \{\}\)/);
  const explained = sources.flatMap((file) => {
    const lines = read(file).split('\n');
    return lines.filter((line, i) => /on\('error', \(\) => \{\}\)/.test(line) && /^\s*\/\/ /.test(lines[i - 1] ?? ''));
  });
  expect(silent.length).toBe(explained.length);
});

test('no path of a machine and no host of a registry is in the repository', () => {
  const hosts = new RegExp(
    `${['registry', 'npmjs'].join('\\.')}|${['files', 'pythonhosted'].join('\\.')}|/(home|work)/\\w`,
  );
  expect(find([...all, 'package-lock.json', '.npmrc'], hosts)).toEqual([]);
});
