import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openRegular, readRegular } from '@qwen-supervisor/files/read-regular';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../fixture-files.js';

test('a file is read up to its bound, links are followed', () => {
  const folder = temporaryFolder();
  writeFileSync(join(folder, 'a'), 'hello');
  symlinkSync('a', join(folder, 'link'));
  expect(readRegular(join(folder, 'link'), 5).bytes.toString()).toBe('hello');
  expect(() => readRegular(join(folder, 'a'), 4)).toThrow(/more than 4 bytes/);
});

test('what is no regular file is refused at once: a pipe without a writer, a device without end, a folder', () => {
  const folder = temporaryFolder();
  execFileSync('mkfifo', [join(folder, 'pipe')]);
  mkdirSync(join(folder, 'folder'));
  for (const [path, words] of [
    [join(folder, 'pipe'), /no regular file/],
    ['/dev/zero', /no regular file/],
    [join(folder, 'folder'), /is a folder/],
    [join(folder, 'nothing'), /ENOENT/],
  ] as const)
    expect(() => openRegular(path), path).toThrow(words);
});
