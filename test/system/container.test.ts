/** The container, as far as it can be looked at without one: its files, and the supervisor as process 1. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa, execaSync } from 'execa';
import { expect, onTestFinished, test } from 'vitest';
import { parse } from 'yaml';
import { REPOSITORY, temporaryFolder } from '../fixture-files.js';
import { processesWith, startProduct, until } from './product.js';

const FOLDER = join(REPOSITORY, 'config/container');
/** Instructions and their words. */
const dockerfile = readFileSync(join(FOLDER, 'Dockerfile'), 'utf8')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
  .map((line) => line.split(/ (.*)/s, 2) as [string, string]);
const wordsOf = (instruction: string) =>
  JSON.parse(dockerfile.findLast(([name]) => name === instruction)?.[1].replace(/^[^[]*/, '') ?? '[]') as string[];

test('the Dockerfile has known instructions only, runs as a user, and names what the program has', () => {
  const known = ['FROM', 'WORKDIR', 'COPY', 'RUN', 'USER', 'ENV', 'VOLUME', 'EXPOSE', 'STOPSIGNAL', 'HEALTHCHECK'];
  for (const [name] of dockerfile) expect([...known, 'ENTRYPOINT', 'CMD']).toContain(name);
  expect(dockerfile.find(([name]) => name === 'USER')).toEqual(['USER', 'node']);
  const { scripts } = JSON.parse(readFileSync(join(REPOSITORY, 'package.json'), 'utf8'));
  for (const [, script] of readFileSync(join(FOLDER, 'Dockerfile'), 'utf8').matchAll(/npm run (\w+)/g))
    expect(scripts).toHaveProperty(script as string);
});

test('the compose file builds it, keeps its data, and gives it the time that a stop takes', () => {
  const { services, volumes, secrets } = parse(readFileSync(join(FOLDER, 'compose.yaml'), 'utf8'));
  const service = services['qwen-supervisor'];
  expect(service.build).toEqual({ context: '../..', dockerfile: 'config/container/Dockerfile' });
  expect(service.stop_grace_period).toBe('30s');
  expect(service.volumes).toEqual(['data:/data']);
  expect(Object.keys(volumes)).toEqual(['data']);
  expect(secrets.keys.file).toBe('./keys');
  // Nobody else in the house without being asked.
  expect(service.ports).toEqual(['127.0.0.1:8000:8000']);
});

test('the health check is well when pictures can be drawn, and not before', async () => {
  const product = await startProduct();
  onTestFinished(() => product.clean());
  const [program, ...args] = wordsOf('HEALTHCHECK');
  const check = () =>
    execa(
      program as string,
      args.map((word) => word.replace('http://127.0.0.1:8000', product.url)),
      { reject: false },
    );
  expect((await check()).exitCode).toBe(1);
  await product.ready();
  expect((await check()).exitCode).toBe(0);
});

const canBeFirst =
  process.getuid?.() === 0 && execaSync('unshare', ['-fp', '--mount-proc', 'true'], { reject: false }).exitCode === 0;

test.skipIf(!canBeFirst)('as process 1 it restarts its worker, and stops in order when it is told to', async () => {
  const dataDir = temporaryFolder();
  const keys = join(dataDir, 'keys');
  writeFileSync(keys, 'use 0123456789abcdef\n', { mode: 0o600 });
  const flags = wordsOf('CMD').map((word) =>
    word === '0.0.0.0' ? '127.0.0.1' : word === '/run/secrets/keys' ? keys : word,
  );
  const bin = join(REPOSITORY, 'bin/qwen-supervisor.js');
  const inside = execa('unshare', ['-fp', '--mount-proc', process.execPath, bin, ...flags, '--port', '0'], {
    env: { QWEN_SUPERVISOR_DATA_DIR: dataDir },
    reject: false,
    buffer: false,
  });
  let log = '';
  inside.stdout.on('data', (chunk) => {
    log += chunk;
  });
  const seen = (text: RegExp, count = 1) =>
    until(async () => ([...log.matchAll(new RegExp(text, 'g'))].length >= count ? true : null));
  await seen(/"state":"ready"[^\n]*"child":"inference"|"child":"inference"[^\n]*"state":"ready"/);
  const first = Number(readFileSync(`/proc/${inside.pid}/task/${inside.pid}/children`, 'utf8').trim());
  const worker = () =>
    processesWith(`QWEN_SUPERVISOR_CHILD_DATA_DIR=${dataDir}`).find((pid) =>
      readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('inference/dist/worker'),
    );
  process.kill(worker() as number, 'SIGKILL');
  await seen(/"state":"ready"[^\n]*"child":"inference"|"child":"inference"[^\n]*"state":"ready"/, 2);
  process.kill(first, 'SIGTERM');
  expect((await inside).exitCode).toBe(0);
  expect(processesWith(`QWEN_SUPERVISOR_CHILD_DATA_DIR=${dataDir}`)).toEqual([]);
});
