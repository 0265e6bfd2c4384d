/** What the first page says to type is typed, as it stands there. */
import { execFile } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, onTestFinished, test } from 'vitest';
import { REPOSITORY } from '../fixture-files.js';
import { startProduct } from './product.js';

const README = readFileSync(join(REPOSITORY, 'README.md'), 'utf8');
const commands = [...README.matchAll(/```console\n(.*?)```/gs)]
  .flatMap(([, block]) => (block as string).split('\n'))
  .flatMap((line) => (line.startsWith('$ ') ? [line.slice(2)] : []));

test('the commands for npm are scripts of this package', () => {
  const { scripts } = JSON.parse(readFileSync(join(REPOSITORY, 'package.json'), 'utf8')) as { scripts: object };
  const named = commands.flatMap((command) => [...command.matchAll(/npm (?:run )?([a-z-]+)/g)].map(([, name]) => name));
  const own = named.filter((name) => !['ci', 'install'].includes(String(name)));
  expect(own).toEqual(['start', 'package', 'test']);
  for (const name of own) expect(scripts).toHaveProperty(String(name));
});

test('every other command does what it says, beside a server on its port', async () => {
  const product = await startProduct();
  onTestFinished(() => product.clean());
  await product.ready();
  onTestFinished(() => rmSync(join(REPOSITORY, 'fox.png'), { force: true }));
  const port = new URL(product.url).port;
  const run = commands.filter((command) => /^(npx qwen-supervisor (generate|status)|curl)/.test(command));
  expect(run).toHaveLength(3);
  for (const command of run) {
    const env = { ...process.env, QWEN_SUPERVISOR_DATA_DIR: product.dataDir };
    const { stdout } = await promisify(execFile)('sh', ['-c', command.replace('localhost:8000', `localhost:${port}`)], {
      cwd: REPOSITORY,
      env,
      maxBuffer: 16 << 20,
    });
    expect(stdout, command).toMatch(/fox\.png|"b64_json"|supervisor\s+running/);
  }
  expect(existsSync(join(REPOSITORY, 'fox.png'))).toBe(true);
});
