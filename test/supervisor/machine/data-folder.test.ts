import { chmodSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  emptyTemporaryFolder,
  prepareDataDir,
  prepareSocket,
  readPresence,
} from '@qwen-supervisor/supervisor/machine/data-folder';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../../fixture-files.js';

const mode = (path: string) => (statSync(path).mode & 0o777).toString(8);

test('what an earlier start has left open to others is closed, the folder itself is left to its owner', () => {
  const folder = temporaryFolder();
  chmodSync(folder, 0o755);
  mkdirSync(join(folder, 'images'), { mode: 0o755 });
  mkdirSync(join(folder, 'tmp'));
  writeFileSync(join(folder, 'tmp', 'left over'), 'x');
  for (const name of ['jobs.db', 'jobs.db-wal']) writeFileSync(join(folder, name), '', { mode: 0o644 });
  prepareDataDir(folder);
  expect(['', 'images', 'cache', 'logs', 'jobs.db', 'jobs.db-wal'].map((name) => mode(join(folder, name)))).toEqual([
    '755',
    '700',
    '700',
    '700',
    '600',
    '600',
  ]);
  emptyTemporaryFolder(folder);
  expect(() => readFileSync(join(folder, 'tmp', 'left over'))).toThrow(/ENOENT/);
});

test('the socket lies in the runtime folder, or where nobody else has put something in the way', () => {
  const [runtime, data] = [temporaryFolder(), temporaryFolder()];
  expect(prepareSocket(data, { XDG_RUNTIME_DIR: runtime })).toMatch(`${runtime}/qwen-supervisor/`);
  const planted = temporaryFolder();
  symlinkSync(data, join(planted, 'qwen-supervisor'));
  const elsewhere = prepareSocket(data, { XDG_RUNTIME_DIR: planted });
  expect(elsewhere).not.toContain(planted);
  expect(mode(join(elsewhere, '..'))).toBe('700');
  expect(prepareSocket(data, { XDG_RUNTIME_DIR: join(planted, 'none', 'at', 'all') })).not.toContain(planted);
});

test('what is written of a running supervisor is believed only in its own shape', () => {
  const folder = temporaryFolder();
  for (const text of ['{', '[]', '{"pid": "x"}', '{"pid": -1, "socket": "a", "url": "b"}']) {
    writeFileSync(join(folder, 'supervisor.json'), text);
    expect(readPresence(folder), text).toBeNull();
  }
  expect(readPresence(join(folder, 'none'))).toBeNull();
});
