import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { connectIpc } from '@qwen-supervisor/ipc/connect';
import { foreignness } from '@qwen-supervisor/ipc/own-socket';
import { expect, onTestFinished, test } from 'vitest';
import { temporaryFolder } from '../fixture-files.js';

async function socketIn(folder: string, mode: number): Promise<string> {
  mkdirSync(folder);
  const path = join(folder, 'a.sock');
  const server = createServer();
  onTestFinished(() => void server.close());
  await new Promise<void>((resolve) => server.listen(path, resolve));
  chmodSync(folder, mode);
  return path;
}

test('a socket of our own in a folder of our own is taken, and nothing else is', async () => {
  const folder = temporaryFolder();
  const own = await socketIn(join(folder, 'own'), 0o700);
  expect(foreignness(own)).toBeNull();
  symlinkSync('own', join(folder, 'link'));
  symlinkSync(own, join(folder, 'own', 'link.sock'));
  writeFileSync(join(folder, 'own', 'file.sock'), '');
  for (const path of [
    join(folder, 'link', 'a.sock'),
    join(folder, 'own', 'link.sock'),
    join(folder, 'own', 'file.sock'),
    join(folder, 'own', 'none.sock'),
    join(folder, 'none', 'a.sock'),
    await socketIn(join(folder, 'open'), 0o755),
  ])
    expect(foreignness(path), path).not.toBeNull();
});

test('nobody connects to a socket that others may have made', async () => {
  const path = await socketIn(join(temporaryFolder(), 'open'), 0o777);
  await expect(connectIpc(path, () => ({}))).rejects.toMatchObject({ code: 'NOT_RUNNING' });
});
