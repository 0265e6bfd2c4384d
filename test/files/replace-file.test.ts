import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { replaceFile } from '@qwen-supervisor/files/replace-file';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../fixture-files.js';

test('a file is replaced whole, and nothing else is left in its folder', async () => {
  const folder = temporaryFolder();
  const path = join(folder, 'file');
  writeFileSync(path, 'old');
  await replaceFile(path, Buffer.from('new'));
  await replaceFile(path, Buffer.from('newer'), { sync: false });
  expect([readFileSync(path, 'utf8'), readdirSync(folder)]).toEqual(['newer', ['file']]);
});

test('where it cannot be replaced the old one stays, and nothing is left beside it', async () => {
  const folder = temporaryFolder();
  mkdirSync(join(folder, 'file'));
  await expect(replaceFile(join(folder, 'file'), Buffer.from('new'))).rejects.toThrow();
  expect(readdirSync(folder)).toEqual(['file']);
});
