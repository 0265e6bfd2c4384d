import { statSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { connectIpc } from '@qwen-supervisor/ipc/connect';
import { listenIpc } from '@qwen-supervisor/ipc/listen';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { expect, onTestFinished, test } from 'vitest';
import { temporaryFolder } from '../fixture-files.js';

type Served = {
  double(n: number): number;
  refuse(params: object): never;
  note(text: string): void;
  repeat(count: number): string;
};
type Nothing = Record<string, never>;

async function serve() {
  const path = join(temporaryFolder(), 's', 'a.sock');
  const notes: string[] = [];
  const server = await listenIpc<Nothing, Served>(path, () => ({
    double: (n) => 2 * n,
    refuse: () => {
      throw new CodedError('JOB_NOT_FOUND', 'no such job');
    },
    note: (text) => {
      notes.push(text);
    },
    repeat: (count) => 'x'.repeat(count),
  }));
  onTestFinished(() => server.close());
  return { path, notes, server };
}

test('requests are answered, errors keep their code, notifications arrive before later requests are answered', async () => {
  const { path, notes } = await serve();
  const link = await connectIpc<Served, Nothing>(path, () => ({}));
  link.notify('note', 'first');
  expect(await Promise.all([1, 2, 3].map((n) => link.request('double', n)))).toEqual([2, 4, 6]);
  expect(notes).toEqual(['first']);
  await expect(link.request('refuse', {})).rejects.toMatchObject({ code: 'JOB_NOT_FOUND', message: 'no such job' });
  link.close();
});

test('two hundred clients are served at once', async () => {
  const { path } = await serve();
  const links = await Promise.all(Array.from({ length: 200 }, () => connectIpc<Served, Nothing>(path, () => ({}))));
  expect(await Promise.all(links.map((link, i) => link.request('double', i)))).toEqual(links.map((_, i) => 2 * i));
  for (const link of links) link.close();
});

test('large answers that are asked for all at once wait for the reader, none costs the connection', async () => {
  const { path } = await serve();
  const link = await connectIpc<Served, Nothing>(path, () => ({}));
  const answers = await Promise.all(Array.from({ length: 20 }, () => link.request('repeat', 10 << 20)));
  expect(answers.map(({ length }) => length)).toEqual(Array(20).fill(10 << 20));
  link.close();
});

test('an unknown method is an error of that request only', async () => {
  const { path } = await serve();
  const link = await connectIpc<Served & { toString(p: object): string }, Nothing>(path, () => ({}));
  await expect(link.request('toString', {})).rejects.toMatchObject({ code: 'INTERNAL' });
  expect(await link.request('double', 4)).toBe(8);
  link.close();
});

test('what waits for an answer fails when the connection is lost', async () => {
  const { path, server } = await serve();
  const link = await connectIpc<Served, Nothing>(path, () => ({}));
  const waiting = link.request('double', 1);
  server.close();
  await expect(waiting).rejects.toMatchObject({ code: 'LINK_LOST' });
  await expect(link.request('double', 1)).rejects.toMatchObject({ code: 'LINK_LOST' });
});

test('nobody listening is told as such', async () => {
  const path = join(temporaryFolder(), 'none.sock');
  await expect(connectIpc<Served, Nothing>(path, () => ({}))).rejects.toMatchObject({ code: 'NOT_RUNNING' });
});

test('a peer that breaks the framing is cut off, the others are not', async () => {
  const { path } = await serve();
  const link = await connectIpc<Served, Nothing>(path, () => ({}));
  const bad = connect(path);
  bad.write(Buffer.alloc(64, 0xff));
  await new Promise<void>((resolve) => bad.on('close', () => resolve()));
  expect(await link.request('double', 2)).toBe(4);
  link.close();
});

test('the folder of the socket is private', async () => {
  const { path } = await serve();
  expect(statSync(join(path, '..')).mode & 0o777).toBe(0o700);
});
