/** `verify`: what it says of a system that does as it should, and of those that do not. */
import { readdirSync, writeFileSync } from 'node:fs';
import { request as ask, createServer } from 'node:http';
import { join } from 'node:path';
import type { SystemStatus } from '@qwen-supervisor/protocol/status';
import { execa } from 'execa';
import { expect, onTestFinished, test } from 'vitest';
import { REPOSITORY, temporaryFolder } from '../fixture-files.js';
import { cli, NASTY, processesWith, startProduct } from './product.js';

const BIN = join(REPOSITORY, 'bin/qwen-supervisor.js');
/** A folder for what is temporary, of this test alone, and what of `verify` is in it. */
function scratchFolder() {
  const TMPDIR = temporaryFolder();
  return { TMPDIR, left: () => readdirSync(TMPDIR).filter((name) => name.startsWith('qwen-supervisor-verify-')) };
}

async function verify(args: string[], env: Record<string, string> = {}) {
  const { code, stdout, stderr } = await cli(['verify', '--json', ...args], env);
  const { findings } = JSON.parse(stdout) as { findings: { about: string; result: string; says: string }[] };
  return { code, stderr, findings, of: (about: string) => findings.find((finding) => finding.about === about) };
}

test('a whole system is started, drawn with through every API, killed in, stopped, and gone afterwards', async () => {
  const { TMPDIR, left } = scratchFolder();
  const { code, findings, of } = await verify([], { TMPDIR });
  expect(findings.filter(({ result }) => result !== 'pass')).toEqual([]);
  expect(code).toBe(0);
  const abouts = ['start', 'load', 'model', 'native API', 'OpenAI API', 'A1111 API', "first launcher's API"];
  expect(findings.map(({ about }) => about)).toEqual([
    ...abouts,
    ...['same picture', 'page', 'whole picture', 'resume', 'stop'],
  ]);
  expect(of('resume')?.says).toMatch(/went on at step \d+ to the same pixels/);
  expect(left()).toEqual([]);
  expect(processesWith(TMPDIR)).toEqual([]);
});

test.each(['SIGINT', 'SIGTERM', 'SIGKILL'] as const)('ended by %s it leaves no process behind', async (signal) => {
  const { TMPDIR, left } = scratchFolder();
  const verifying = execa(process.execPath, [BIN, 'verify'], { reject: false, buffer: false, env: { TMPDIR } });
  await new Promise((resolve) => verifying.stdout.once('data', resolve));
  verifying.kill(signal);
  await verifying;
  await expect.poll(() => processesWith(TMPDIR), { timeout: 60_000 }).toEqual([]);
  if (signal !== 'SIGKILL') expect(left()).toEqual([]);
});

test('a model that is not there fails the start, with the reason', async () => {
  const { code, of } = await verify(['--model', '/nowhere']);
  expect(code).toBe(97);
  expect(of('start')).toMatchObject({ result: 'fail', says: expect.stringContaining('MODEL_NOT_FOUND: /nowhere') });
});

test('a load that never ends well is a failure, not a wait without end', async () => {
  const folder = temporaryFolder();
  const preload = join(folder, 'dies.mjs');
  writeFileSync(preload, `if (process.argv[1]?.endsWith('inference/dist/worker.js')) process.exit(70);`);
  const { code, of } = await verify([], { NODE_OPTIONS: `--import ${preload}` });
  expect(code).toBe(97);
  expect(of('load')).toMatchObject({ result: 'fail', says: expect.stringContaining('given up') });
});

test('a server that runs is looked at without being harmed, and its gallery is as it was', async () => {
  const keys = join(temporaryFolder(), 'keys');
  writeFileSync(keys, 'use 0123456789abcdef\n', { mode: 0o600 });
  const product = await startProduct(['--keys-file', keys], undefined, NASTY);
  onTestFinished(() => product.clean());
  const headers = { authorization: 'Bearer 0123456789abcdef' };
  const asked = async (path: string) => (await (await product.fetch(path, { headers })).json()) as never;
  const worker = async () => ((await asked('/api/v1/status')) as SystemStatus).children[0];
  await expect.poll(async () => (await worker())?.state, { timeout: 60_000 }).toBe('ready');
  const pid = (await worker())?.pid;
  const { code, findings } = await verify(['--url', product.url], { QWEN_SUPERVISOR_KEY: '0123456789abcdef' });
  expect(findings.filter(({ result }) => result !== 'pass')).toEqual([]);
  expect(code).toBe(0);
  expect((await worker())?.pid).toBe(pid);
  expect(((await asked('/api/v1/jobs')) as { jobs: unknown[] }).jobs).toEqual([]);
  const locked = await verify(['--url', product.url]);
  expect(locked.code).toBe(97);
  expect(locked.of('model')?.says).toContain('KEY_MISSING');
});

test('a server that draws something else for one of its APIs, or nothing, is found out', async () => {
  const product = await startProduct();
  onTestFinished(() => product.clean());
  await product.ready();
  const { port } = new URL(product.url);
  const server = createServer((request, response) => {
    if (request.url === '/sdapi/v1/txt2img') return void response.writeHead(500).end('{"error": "no"}');
    const chunks: Buffer[] = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
      let body = Buffer.concat(chunks).toString();
      if (request.url === '/v1/images/generations') body = body.replace('"seed":3', '"seed":4');
      const { method, url: path } = request;
      const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
      ask({ port, path, method, headers }, (answer) => {
        response.writeHead(answer.statusCode as number, answer.headers);
        answer.pipe(response);
      }).end(body);
    });
  }).listen(0, '127.0.0.1');
  onTestFinished(() => void server.close());
  await new Promise((resolve) => server.once('listening', resolve));
  const { port: own } = server.address() as { port: number };
  const { code, of, stderr } = await verify(['--url', `http://127.0.0.1:${own}`]);
  expect(of('A1111 API')).toMatchObject({ result: 'fail', says: expect.stringContaining('answers 500') });
  expect(of('same picture')).toMatchObject({ result: 'fail', says: expect.stringContaining('different pictures') });
  expect(of('native API')?.result).toBe('pass');
  expect(code).toBe(97);
  expect(stderr).toContain('error VERIFY_FAILED: 2 of 7 failed');
});
