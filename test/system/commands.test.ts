/** Commands for people and scripts, run as they run them. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Job } from '@qwen-supervisor/protocol/job';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { REPOSITORY, temporaryFolder } from '../fixture-files.js';
import { cli, type Product, startProduct, until } from './product.js';

const BIN = join(REPOSITORY, 'bin/qwen-supervisor.js');

describe('generate', () => {
  let product: Product;
  beforeAll(async () => {
    product = await startProduct();
    await product.ready();
  });
  afterAll(() => product.clean());
  const generate = (...args: string[]) => cli(['generate', '--data-dir', product.dataDir, '--steps', '4', ...args]);
  const inputOf = (input: string, ...args: string[]) =>
    execa(process.execPath, [BIN, 'generate', '--data-dir', product.dataDir, '--steps', '4', ...args], {
      input,
      reject: false,
    });

  test('draws a prompt of each line of standard input, several of each, with seeds that follow one another', async () => {
    const folder = temporaryFolder();
    const { stdout } = await inputOf('a fox\n\n  a cat\n', '-', '-n', '2', '--seed', '7', '--json', '-o', folder);
    const pictures = stdout.split('\n').map((line) => JSON.parse(line));
    expect(pictures.map(({ prompt, seed }) => `${prompt} ${seed}`)).toEqual([
      'a fox 7',
      'a fox 8',
      'a cat 7',
      'a cat 8',
    ]);
    for (const { file } of pictures) expect(readFileSync(file).subarray(1, 4).toString()).toBe('PNG');
    // They are one group: they can be cancelled together.
    const groups = await Promise.all(pictures.map(async ({ id }) => (await product.job(id)).group));
    expect(new Set(groups).size).toBe(1);
    expect(groups[0]).not.toBe(null);
  });

  test('draws over a picture; its size is followed where none is asked for', async () => {
    const folder = temporaryFolder();
    const fox = join(folder, 'fox.png');
    expect(await generate('-o', fox, '--size', '128x96', 'a fox')).toMatchObject({ code: 0 });
    const { stdout } = await generate('--image', fox, '--strength', '0.5', '--json', '-o', folder, 'a cat');
    const job = await product.job(JSON.parse(stdout).id);
    expect(job.height / job.width).toBeCloseTo(0.75, 1);
    expect(job).toMatchObject({ strength: 0.5, steps: 2 });
    expect(job.initImage).toMatch(/^[0-9a-f]{64}$/);
  });

  test('that is told to end cancels what it has asked for, and says so once', async () => {
    const asked = ['--steps', '500', '-n', '5', 'a fox'];
    const drawing = execa(process.execPath, [BIN, 'generate', '--data-dir', product.dataDir, ...asked], {
      reject: false,
    });
    await until(async () => ((await product.status()).queue.running === 1 ? true : null));
    drawing.kill('SIGTERM');
    const { exitCode, stderr } = await drawing;
    expect(exitCode).toBe(143);
    expect(stderr).toMatch(/^5 cancelled$/m);
    await until(async () => ((await product.status()).queue.queued === 0 ? true : null));
  });

  test('whose reader goes away cancels what nobody will hear of', async () => {
    const asked = ['--steps', '60', '-n', '5', '-o', temporaryFolder(), 'a fox'];
    const drawing = spawn(process.execPath, [BIN, 'generate', '--data-dir', product.dataDir, ...asked]);
    drawing.stdout.once('data', () => drawing.stdout.destroy());
    const [code] = await once(drawing, 'close');
    expect(code).toBe(0);
    await until(async () => ((await product.status()).queue.queued === 0 ? true : null));
    const { jobs } = (await product.call('/api/v1/jobs?limit=5')).json as unknown as { jobs: Job[] };
    expect(jobs.filter(({ status }) => status === 'cancelled').length).toBeGreaterThan(0);
  });

  test('with --detach queues, prints the ids and does not wait', async () => {
    const { stdout } = await generate('--detach', '-n', '3', 'a fox');
    const ids = stdout.trim().split('\n');
    expect(ids).toHaveLength(3);
    for (const id of ids) expect(await product.ended(id)).toMatchObject({ status: 'done' });
  });

  test('what is wrong is told before anything is queued', async () => {
    const before = (await product.call('/api/v1/jobs')).json;
    writeFileSync(join(product.dataDir, 'no.png'), 'no picture');
    for (const [args, words] of [
      [['--image', join(product.dataDir, 'no.png'), 'x'], /UPLOAD_INVALID: .*no\.png: not a PNG/],
      [['--image', '/dev/zero', 'x'], /UPLOAD_INVALID: \/dev\/zero: is no regular file/],
      [['--strength', '0.5', 'x'], /USAGE_INVALID: --strength: .* no --image/],
      [['-n', '2', '-o', join(product.dataDir, 'x.png'), 'x'], /USAGE_INVALID: --output: .* is no folder/],
      [['-n', '0', 'x'], /USAGE_INVALID: --number: '0' is not 1 to 1000/],
      [['--strength', '2', '--image', 'x', 'x'], /USAGE_INVALID: --strength/],
    ] as const) {
      const { code, stderr } = await generate(...args);
      expect(stderr).toMatch(words);
      expect(code).toBeGreaterThan(63);
    }
    expect((await inputOf('\n\n', '-')).stderr).toContain('no prompt in standard input');
    expect((await inputOf('x\n'.repeat(1001), '-')).stderr).toContain('more than 1000 prompts');
    expect((await product.call('/api/v1/jobs')).json).toEqual(before);
  });
});

describe('keys', () => {
  test('are made, listed without being shown, used, and taken away', async () => {
    const file = join(temporaryFolder(), 'keys');
    const keys = (...args: string[]) => cli(['keys', ...args, '--keys-file', file]);
    const ann = (await keys('add', 'Ann B')).stdout.trim();
    expect(ann.length).toBeGreaterThan(30);
    await keys('add', 'root', '--admin');
    expect(statSync(file).mode & 0o077).toBe(0);
    const listed = (await keys('list')).stdout;
    expect(listed).toMatch(/^[0-9a-f]{8} {2}use {4}Ann B\n[0-9a-f]{8} {2}admin {2}root\n$/);
    expect(listed).not.toContain(ann);
    const product = await startProduct(['--keys-file', file]);
    const asks = (key: string) => product.fetch('/api/v1/status', { headers: { authorization: `Bearer ${key}` } });
    expect((await asks(ann)).status).toBe(200);
    expect(await keys('remove', 'Ann B')).toMatchObject({ code: 0 });
    await cli(['reload', '--data-dir', product.dataDir]);
    await expect.poll(async () => (await asks(ann).catch(() => null))?.status, { timeout: 60_000 }).toBe(401);
    await product.clean();
  });

  test('many that are made at once are all there, or are refused; the file stays where it is and whose it is', async () => {
    const folder = temporaryFolder();
    const [file, link] = [join(folder, 'kept'), join(folder, 'keys')];
    writeFileSync(file, 'use 0123456789abcdef\n', { mode: 0o600 });
    symlinkSync(file, link);
    if (process.getuid?.() === 0) chownSync(file, 1234, 1234);
    const names = ['a', 'b', 'c', 'd'];
    const made = await Promise.all(names.map((name) => cli(['keys', 'add', name, '--keys-file', link])));
    const text = readFileSync(file, 'utf8');
    for (const { code, stdout, stderr } of made) {
      if (code === 0) expect(text).toContain(stdout.trim());
      else expect(stderr).toContain('another command changes it');
    }
    expect(made.some(({ code }) => code === 0)).toBe(true);
    expect(lstatSync(link).isSymbolicLink()).toBe(true);
    if (process.getuid?.() === 0) expect(statSync(file).uid).toBe(1234);
  });

  test('what others have written into the file stays, and the last key is not taken', async () => {
    const file = join(temporaryFolder(), 'keys');
    writeFileSync(file, '# of the house\nuse 0123456789abcdef\n', { mode: 0o600 });
    await cli(['keys', 'add', 'x', '--keys-file', file]);
    expect(readFileSync(file, 'utf8')).toMatch(/^# of the house\nuse 0123456789abcdef\nuse qs-\S+ x\n$/);
    expect((await cli(['keys', 'add', 'x', '--keys-file', file])).stderr).toContain("a key of 'x' already");
    expect(await cli(['keys', 'remove', 'x', '--keys-file', file])).toMatchObject({ code: 0 });
    const id = (await cli(['keys', 'list', '--keys-file', file])).stdout.slice(0, 8);
    expect((await cli(['keys', 'remove', id, '--keys-file', file])).stderr).toContain('it is the only key');
  });
});

describe('config', () => {
  test('show tells where each value comes from', async () => {
    const folder = temporaryFolder();
    const file = join(folder, 'q.toml');
    writeFileSync(file, 'max-steps = 30\nport = 9000\n');
    const args = ['config', 'show', '--config', file, '--port', '9001', '--json', '--data-dir', folder];
    const { stdout } = await cli(args, { QWEN_SUPERVISOR_LOG_LEVEL: 'warn' });
    const { settings } = JSON.parse(stdout) as { settings: { key: string; value: unknown; from: string }[] };
    const find = (key: string) => settings.find((one) => one.key === key);
    expect(find('max-steps')).toMatchObject({ value: 30, from: file });
    expect(find('port')).toMatchObject({ value: 9001, from: 'the command line', takesEffect: 'start' });
    expect(find('log-level')).toMatchObject({ value: 'warn', from: 'the environment', takesEffect: 'at once' });
    expect(find('host')).toMatchObject({ value: 'localhost', from: 'the defaults' });
  });

  test('check refuses what a start would refuse', async () => {
    expect(await cli(['config', 'check'])).toMatchObject({ code: 0, stdout: 'the settings are valid\n' });
    expect((await cli(['config', 'check', '--port', '70000'])).stderr).toContain('CONFIG_INVALID: port');
    expect((await cli(['config', 'check', '--host', '0.0.0.0'])).stderr).toContain('HOST_REFUSED');
    for (const host of ['myhost', '300.1.1.1'])
      expect((await cli(['config', 'check', '--host', host])).stderr).toContain('PORT_UNUSABLE');
    expect((await cli(['config', 'check', '--keys-file', '/nowhere'])).stderr).toContain('KEYS_FILE_INVALID');
  });
});

describe('completion', () => {
  test('in bash knows commands, their flags, and what may follow', async () => {
    const script = join(temporaryFolder(), 'completion');
    writeFileSync(script, (await cli(['completion', 'bash'])).stdout);
    const offered = async (...words: string[]) => {
      const ask = `source ${script}; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _qwen_supervisor; echo "\${COMPREPLY[*]}"`;
      return (await execa('bash', ['-c', ask, 'bash', 'qwen-supervisor', ...words])).stdout;
    };
    expect(await offered('st')).toBe('start stop status store');
    expect(await offered('model', 'add', '--q')).toBe('--quantize --quality');
    expect(await offered('generate', 'a fox', '--det')).toBe('--detach');
    const folder = temporaryFolder();
    mkdirSync(join(folder, 'checkpoint'));
    expect(await offered('model', 'add', `${folder}/che`)).toBe(`${folder}/checkpoint`);
  });

  test.each(['zsh', 'fish'])('there is one for %s', async (shell) => {
    const { code, stdout } = await cli(['completion', shell]);
    expect(code).toBe(0);
    expect(stdout).toContain('qwen-supervisor');
  });
});

test('status --watch shows children, queue and crashes on the whole screen, and leaves it as it was', async () => {
  const product = await startProduct();
  await product.ready();
  await cli(['generate', '--data-dir', product.dataDir, '--detach', '-n', '40', '--steps', '300', 'a fox']);
  process.kill(await product.pidOf('inference'), 'SIGKILL');
  await product.ready();
  const typed = join(temporaryFolder(), 'screen');
  const command = `${process.execPath} ${BIN} status --watch --data-dir ${product.dataDir}`;
  // A terminal of its own; `q` comes when the first pictures of the screen are there.
  const watched = execa('script', ['-qfec', `stty rows 20 cols 60; ${command}`, typed], {
    stdin: 'pipe',
    stdout: 'ignore',
  });
  const screen = () => (existsSync(typed) ? readFileSync(typed, 'utf8') : '');
  const frames = () => screen().split('\x1b[H');
  const isThere = () =>
    frames().some((frame) => /^inference +busy/m.test(frame) && frame.includes('inference, killed'));
  await expect.poll(isThere, { timeout: 60_000 }).toBe(true);
  watched.stdin.write('q');
  expect((await watched).exitCode).toBe(0);
  const frame = frames().at(-1) as string;
  const lines = frame.split('\x1b[J')[0]?.split('\x1b[K\r\n') as string[];
  expect(lines.length).toBeLessThanOrEqual(20);
  for (const line of lines) expect([...line.replace('\x1b[K', '')].length).toBeLessThanOrEqual(60);
  expect(frame).toMatch(/^inference +busy/m);
  expect(frame).toMatch(/and \d+ more/);
  expect(screen()).toContain('\x1b[?25h\x1b[?1049l');
  await product.clean();
});

test('on a terminal stop says which step of the picture it waits for, and clears that away', async () => {
  const product = await startProduct(['--on-stop', 'finish']);
  await product.ready();
  await cli(['generate', '--data-dir', product.dataDir, '--detach', '--steps', '600', 'a fox']);
  await until(async () => ((await product.status()).queue.running === 1 ? true : null));
  const typed = join(temporaryFolder(), 'screen');
  const command = `${process.execPath} ${BIN} stop --data-dir ${product.dataDir}`;
  const { exitCode } = await execa('script', ['-qefc', `stty rows 20 cols 50; ${command}`, typed], { stdin: 'ignore' });
  expect(exitCode).toBe(0);
  const [, ...lines] = readFileSync(typed, 'utf8').split('\r\x1b[K');
  expect(lines).toContainEqual(expect.stringMatching(/^a picture ends first: step \d+ of 600, \d+ s$/));
  expect(lines.at(-1)).toMatch(/^stopped\r\n/);
  await product.clean();
});

test.each([
  [['--color'], {}, true],
  [['--no-color'], { FORCE_COLOR: '1' }, false],
  [[], { NO_COLOR: '1' }, false],
  [[], {}, false],
] as const)('in a pipe with %o and %o colours are %s', async (flags, env, expected) => {
  const dataDir = temporaryFolder();
  mkdirSync(join(dataDir, 'logs'));
  writeFileSync(join(dataDir, 'logs/supervisor.log'), '{"level":50,"time":"2026-01-01T00:00:00Z","msg":"x"}\n');
  const { stdout } = await cli(['logs', '--data-dir', dataDir, ...flags], { FORCE_COLOR: '', ...env });
  expect(stdout.includes('\x1b[')).toBe(expected);
  const looked = await cli(['doctor', '--data-dir', dataDir, '--port', '0', ...flags], { FORCE_COLOR: '', ...env });
  expect(looked.stdout.includes('\x1b[32mpass')).toBe(expected);
  expect(looked.stdout).not.toContain('\\u001b');
});

describe('bench', () => {
  test('says where the time and the memory of a start and its pictures went', async () => {
    const { code, stdout } = await cli(['bench', '--json']);
    expect(code).toBe(0);
    const measured = JSON.parse(stdout);
    expect(measured).toMatchObject({ model: 'pocket', size: '128x128', device: 'cpu' });
    expect(Object.keys(measured.load)).toEqual(['tokenizer', 'text_encoder', 'transformer', 'vae', 'warm-up']);
    for (const key of ['serving', 'ready', 'step', 'decode', 'http', 'ipc', 'supervisorBytes'])
      expect(measured[key], key).toBeGreaterThan(0);
    for (const stage of ['loading', 'step']) expect(measured.workerBytes[stage], stage).toBeGreaterThan(10e6);
  });

  test('finds the number of threads, and writes it into the settings beside all else', async () => {
    const file = join(temporaryFolder(), 'q.toml');
    writeFileSync(file, 'port = 9000\nthreads = 77\n# mine\n');
    const { stdout } = await cli(['bench', '--find-threads', '--write', '--json', '--config', file]);
    const { best, steps } = JSON.parse(stdout);
    expect(steps.map(({ threads }: { threads: number }) => threads)).toContain(best);
    expect(readFileSync(file, 'utf8')).toBe(`port = 9000\nthreads = ${best}\n# mine\n`);
    expect((await cli(['bench', '--write'])).stderr).toContain('USAGE_INVALID: --write: needs --find-threads');
  });
});
