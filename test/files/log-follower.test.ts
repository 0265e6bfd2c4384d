import { appendFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { unread, versions } from '@qwen-supervisor/files/log-follower';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../fixture-files.js';

test('a log that is set aside is read to its end, then the new one from its beginning, however large it has become', () => {
  const file = join(temporaryFolder(), 'log');
  writeFileSync(file, 'read\n');
  const { inode = 0, size: position = 0 } = versions(file)[0] ?? {};
  appendFileSync(file, 'rest\n');
  renameSync(file, `${file}.1`);
  writeFileSync(file, 'a new file that is longer than the old one\n');
  expect(unread({ inode, position }, versions(file))).toEqual([
    { path: `${file}.1`, from: 5, to: 10 },
    { path: file, from: 0, to: 43 },
  ]);
});

test('of a log that grows only what is new is read, and nothing where nothing is', () => {
  const file = join(temporaryFolder(), 'log');
  writeFileSync(file, 'read\nnew\n');
  const { inode = 0 } = versions(file)[0] ?? {};
  expect(unread({ inode, position: 5 }, versions(file))).toEqual([{ path: file, from: 5, to: 9 }]);
  expect(unread({ inode, position: 9 }, versions(file))).toEqual([]);
});

test('where all that was read last is gone, everything that is there is new', () => {
  const file = join(temporaryFolder(), 'log');
  writeFileSync(file, 'one\n');
  writeFileSync(`${file}.1`, 'older\n');
  expect(unread({ inode: -1, position: 99 }, versions(file)).map(({ path, from }) => [path, from])).toEqual([
    [`${file}.1`, 0],
    [file, 0],
  ]);
});
