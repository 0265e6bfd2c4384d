/** What an operator does with a running supervisor. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { OTHER, REPOSITORY, temporaryFolder } from '../fixture-files.js';
import { cli, type Product, startProduct, until } from './product.js';

const LONG = { prompt: 'a fox on a teal background', seed: 11, numInferenceSteps: 100 };

let product: Product;
afterEach(() => product.clean());

const command = (...args: string[]) => cli([...args, '--data-dir', product.dataDir]);

test('restart ends the worker between two steps and starts it anew; its job goes on and nothing counts as a crash', async () => {
  product = await startProduct();
  const { id } = await product.submit(LONG);
  await until(async () => ((await product.job(id)).step >= 20 ? true : null));
  const before = await product.pidOf('inference');
  expect(await command('restart')).toMatchObject({ code: 0, stdout: 'inference is being restarted\n' });
  const job = await product.ended(id);
  expect(job).toMatchObject({ status: 'done', attempts: 2, startedOverReason: null });
  expect(job.resumedAtStep).toBeGreaterThanOrEqual(20);
  const [inference] = (await product.status()).children;
  expect(inference).toMatchObject({ restarts: 0, lastExit: { cause: null } });
  expect(inference?.pid).not.toBe(before);
  expect(await command('crashes')).toMatchObject({ stdout: 'no crashes\n' });
  expect(await command('restart', 'api')).toMatchObject({ code: 0 });
  await until(async () => ((await fetch(`${product.url}/healthz`).catch(() => null))?.ok ? true : null));
  expect(await command('restart', 'frob')).toMatchObject({ code: 64, stderr: expect.stringContaining("'frob'") });
});

test('an API that is restarted ends its event streams by itself, and does not have to be killed', async () => {
  product = await startProduct();
  const before = await product.pidOf('api');
  const streams = await Promise.all(['events', 'logs'].map((name) => product.fetch(`/api/v1/${name}`)));
  expect(await command('restart', 'api')).toMatchObject({ code: 0 });
  // To their end, and not to an error in the middle.
  for (const stream of streams) expect(await stream.text()).toBeTypeOf('string');
  await until(async () => ((await product.pidOf('api').catch(() => before)) === before ? null : true));
  const [, api] = (await product.status()).children;
  expect(api).toMatchObject({ restarts: 0, lastExit: { code: 0, signal: null } });
});

test('reload takes the configuration file anew, says what it cannot, and loses no job', async () => {
  const config = join(temporaryFolder(), 'config.toml');
  writeFileSync(config, 'max-steps = 500\n');
  product = await startProduct(['--config', config]);
  const { id } = await product.submit({ ...LONG, numInferenceSteps: 500 });
  await until(async () => ((await product.job(id)).step >= 20 ? true : null));
  expect(await command('reload')).toMatchObject({ code: 0, stdout: 'nothing to change\n' });
  const { id: cancelled } = await product.submit(LONG);
  await product.call(`/api/v1/jobs/${cancelled}/cancel`, {});

  writeFileSync(config, 'max-steps = 50\nmax-queued = 7\nport = 1\n');
  const { stdout } = await command('reload');
  // The port is set by a flag, which wins over the file.
  expect(stdout).toBe('in force now: max-steps, max-queued\n');
  await until(async () => ((await product.call('/api/v1/jobs', LONG)).status === 400 ? true : null));
  expect(await product.call(`/api/v1/jobs/${cancelled}/retry`, {})).toMatchObject({
    status: 400,
    json: { error: { code: 'REQUEST_INVALID', message: expect.stringContaining('100 is more') } },
  });

  writeFileSync(config, 'max-steps = 0\n');
  expect(await command('reload')).toMatchObject({ code: 78, stderr: expect.stringContaining('max-steps') });
  writeFileSync(config, 'model = "/nope"\n');
  expect(await command('reload')).toMatchObject({ code: 66, stderr: expect.stringContaining('/nope') });

  writeFileSync(config, `model = "${OTHER}"\nhost = "127.0.0.2"\n`);
  expect((await command('reload')).stdout).toBe(
    'in force now: model, max-steps, max-queued\nrestarted for it: inference\nonly after a new start: host\n',
  );
  const job = await product.ended(id);
  expect(job).toMatchObject({ status: 'done', startedOverReason: expect.stringContaining('another model') });
  expect((await product.status()).model).toMatchObject({ folder: OTHER });
});

test('a control socket that a logout has removed is made anew when a child is to be started', async () => {
  product = await startProduct();
  await product.ready();
  const { socket } = JSON.parse(readFileSync(join(product.dataDir, 'supervisor.json'), 'utf8'));
  rmSync(socket);
  process.kill(await product.pidOf('inference'), 'SIGKILL');
  await until(async () => ((await product.status()).children[0]?.restarts === 1 ? true : null));
  expect(await product.ended((await product.submit({ ...LONG, numInferenceSteps: 1 })).id)).toMatchObject({
    status: 'done',
  });
  expect(await command('status')).toMatchObject({ code: 0 });
  expect((await product.status()).children[1]).toMatchObject({ name: 'api', restarts: 0 });
});

test('a control socket that a logout has removed is made anew also where nothing is to be started', async () => {
  product = await startProduct();
  await product.ready();
  const { socket } = JSON.parse(readFileSync(join(product.dataDir, 'supervisor.json'), 'utf8'));
  rmSync(socket);
  expect(await command('status')).toMatchObject({ code: 74 });
  await until(async () => ((await command('status')).code === 0 ? true : null));
  expect(await command('stop')).toMatchObject({ code: 0 });
});

test('a reader that stands still stops nothing', async () => {
  product = await startProduct(['--log-level', 'debug']);
  await product.ready();
  // The pipe takes some tens of kilobytes; each job tells more than a hundred lines.
  product.process.stdout?.pause();
  for (let seed = 0; seed < 30; seed++) await product.submit({ ...LONG, numInferenceSteps: 1, seed });
  await until(async () => ((await product.status()).queue.queued === 0 ? true : null));
  for (let i = 0; i < 400; i++)
    await product.call('/api/v1/jobs', { ...LONG, numInferenceSteps: 1, prompt: 'x'.repeat(i) || 'x' });
  expect((await product.call('/api/v1/jobs/cancel', { scope: 'queued' })).status).toBe(200);
  expect(await command('stop')).toMatchObject({ code: 0 });
  product.process.stdout?.resume();
  expect(await product.exited).toMatchObject({ code: 0 });
});

test('a fault of the supervisor itself is in its log, ends with the code of INTERNAL, and costs no job', async () => {
  const fault = "process.on('SIGUSR2',()=>{throw%20new%20Error('a%20fault')})";
  product = await startProduct([], undefined, { NODE_OPTIONS: `--import=data:text/javascript,${fault}` });
  const { id } = await product.submit({ ...LONG, numInferenceSteps: 30 });
  product.process.kill('SIGUSR2');
  expect(await product.exited).toMatchObject({ code: 70, stderr: expect.stringContaining('error INTERNAL: a fault') });
  expect((await command('logs')).stdout).toContain('INTERNAL: a fault');
  product = await startProduct([], product.dataDir);
  expect(await product.ended(id)).toMatchObject({ status: 'done' });
});

test('a folder for sockets that a logout has removed is replaced by another', async () => {
  const runtime = mkdtempSync('/tmp/qwen-run-');
  product = await startProduct([], undefined, { XDG_RUNTIME_DIR: runtime });
  await product.ready();
  rmSync(runtime, { recursive: true });
  process.kill(await product.pidOf('inference'), 'SIGKILL');
  await until(async () => ((await product.status()).children[0]?.restarts === 1 ? true : null));
  await product.ready();
  expect(await command('status')).toMatchObject({ code: 0 });
  expect((await product.status()).children).toMatchObject([{ restarts: 1 }, { restarts: 0 }]);
});

test('large lists asked for at once cost nobody the connection', async () => {
  product = await startProduct();
  const prompt = '狐'.repeat(20_000);
  for (let i = 0; i < 60; i++) await product.submit({ prompt, numInferenceSteps: 1000 });
  const pid = await product.pidOf('api');
  const lists = await Promise.all(Array.from({ length: 16 }, () => product.call('/api/v1/jobs')));
  expect(lists.map(({ status }) => status)).toEqual(Array(16).fill(200));
  expect(await product.pidOf('api')).toBe(pid);
});

test('events give what has happened, and with -f what happens', async () => {
  product = await startProduct();
  await product.ready();
  const follower = spawn(process.execPath, [
    join(REPOSITORY, 'bin/qwen-supervisor.js'),
    ...['events', '-f', '--data-dir', product.dataDir],
  ]);
  let output = '';
  follower.stdout.on('data', (chunk) => {
    output += chunk;
  });
  await until(async () => (output.includes('"ready"') ? true : null));
  const { id } = await product.submit({ ...LONG, numInferenceSteps: 5 });
  await until(async () => (output.includes('"done"') ? true : null));
  follower.kill();
  const events = output
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const types = events.filter((event) => event.jobId === id).map(({ type }) => type);
  expect(types).toEqual(['queued', 'running', 'step', 'step', 'step', 'step', 'step', 'decoding', 'done']);
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, i) => i + 1));
  const { stdout } = await command('events');
  expect(stdout).toContain('"type":"load"');
});

test('crashes are kept over restarts of the supervisor, with what the child last said', async () => {
  product = await startProduct();
  await product.ready();
  process.kill(await product.pidOf('inference'), 'SIGSEGV');
  await until(async () => ((await command('crashes')).stdout.includes('SIGSEGV') ? true : null));
  product.process.kill('SIGTERM');
  await product.exited;
  const { stdout } = await command('crashes', '--json');
  expect(JSON.parse(stdout)).toMatchObject({
    child: 'inference',
    cause: 'crashed',
    signal: 'SIGSEGV',
    during: 'ready',
  });
});
