/** The looks of `doctor`, at a real machine that is well and at one where something is wrong. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import type { Finding } from '@qwen-supervisor/supervisor/doctor/finding';
import Database from 'libsql';
import { expect, onTestFinished, test } from 'vitest';
import { temporaryFolder } from '../fixture-files.js';
import { cli, startProduct } from './product.js';

async function doctor(...args: string[]) {
  const { code, stdout, stderr } = await cli(['doctor', '--json', ...args]);
  const { findings } = JSON.parse(stdout) as { findings: Finding[] };
  return { code, stderr, of: (about: string) => findings.find((finding) => finding.about === about) };
}

test('on a machine that is well nothing fails, and each line is there for people', async () => {
  const dataDir = temporaryFolder();
  const { code, of } = await doctor('--data-dir', dataDir, '--port', '0');
  expect(code).toBe(0);
  const abouts = ['Node', 'packages', 'ONNX Runtime', 'settings', 'supervisor', 'service', 'data folder', 'disk'];
  for (const about of [
    ...abouts,
    'database',
    'port',
    'memory',
    'limits',
    'processors',
    'tasks',
    'clock',
    'tools',
    'cpu',
    'model',
  ])
    expect(of(about)?.result, about).toMatch(/pass|warn/);
  const { stdout } = await cli(['doctor', '--data-dir', dataDir, '--port', '0'], { NO_COLOR: '1' });
  expect(stdout).toMatch(/^pass {2}ONNX Runtime +loads, and computes right/m);
  expect(stdout).toMatch(/^pass {2}model +pocket needs/m);
});

test('what is wrong fails with a step to take, and with a true exit code', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  onTestFinished(() => void server.close());
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as { port: number };
  const dataDir = temporaryFolder();
  const db = new Database(join(dataDir, 'jobs.db'));
  db.exec('CREATE TABLE jobs (id TEXT); PRAGMA user_version = 9999;');
  db.close();
  const keys = join(dataDir, 'keys');
  writeFileSync(keys, 'use 0123456789abcdef\n', { mode: 0o644 });
  const flags = ['--port', String(port), '--data-dir', dataDir, '--model', '/nowhere', '--keys-file', keys];
  const { code, stderr, of } = await doctor(...flags);
  expect(code).toBe(99);
  expect(stderr).toContain('error DOCTOR_FAILED: 4 of ');
  expect(of('port')).toMatchObject({ result: 'fail', says: expect.stringContaining(`node (process ${process.pid})`) });
  expect(of('port')?.step).toBe(`end it, or take another port: --port ${port + 1}`);
  expect(of('database')?.says).toContain('newer version');
  expect(of('keys')?.says).toContain('can be read or written by other users');
  expect(of('model')?.says).toContain('MODEL_NOT_FOUND: /nowhere');
});

test('settings that cannot be read keep nothing else from being looked at', async () => {
  const { code, of } = await doctor('--config', '/nowhere.toml');
  expect(code).toBe(99);
  expect(of('settings')).toMatchObject({ result: 'fail', says: expect.stringContaining('CONFIG_UNREADABLE') });
  expect(of('model')?.result).toBe('pass');
  const dataDir = temporaryFolder();
  const { stdout } = await cli(['doctor', '--json', '--data-dir', dataDir], { QWEN_SUPERVISOR_PORT: 'x' });
  const { findings } = JSON.parse(stdout) as { findings: Finding[] };
  expect(findings.filter(({ result }) => result === 'fail').map(({ about }) => about)).toEqual(['settings']);
  expect(findings.find(({ about }) => about === 'data folder')?.says).toBe(dataDir);
});

test('a database that another process has open is not called damaged', async () => {
  const dataDir = temporaryFolder();
  const db = new Database(join(dataDir, 'jobs.db'));
  onTestFinished(() => void db.close());
  db.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; CREATE TABLE jobs (id TEXT);');
  const { of } = await doctor('--port', '0', '--data-dir', dataDir);
  expect(of('database')).toMatchObject({ result: 'warn', says: expect.stringContaining('in use by another process') });
});

test('a data folder that is a file is told, and a damaged database', async () => {
  const folder = temporaryFolder();
  const file = join(folder, 'file');
  writeFileSync(file, '');
  expect((await doctor('--port', '0', '--data-dir', file)).of('data folder')?.says).toContain('is no folder');
  mkdirSync(join(folder, 'data'));
  writeFileSync(join(folder, 'data/jobs.db'), 'nothing that SQLite has written'.repeat(99));
  const { of } = await doctor('--port', '0', '--data-dir', join(folder, 'data'));
  expect(of('database')).toMatchObject({ result: 'fail', step: expect.stringContaining('keep it aside') });
});

test('of a supervisor that runs its children are told; one that stands still is a failure', async () => {
  const product = await startProduct();
  await product.ready();
  const flags = ['--data-dir', product.dataDir];
  const well = await doctor(...flags);
  expect(well.code).toBe(0);
  expect(well.of('supervisor')?.says).toContain('inference ready, api ready');
  expect(well.of('port')?.says).toBe(`${product.url} is served`);
  expect(well.of('database')).toBe(undefined);
  product.process.kill('SIGSTOP');
  const { code, of } = await doctor(...flags);
  expect(code).toBe(99);
  expect(of('supervisor')).toMatchObject({ result: 'fail', says: expect.stringContaining('SUPERVISOR_SILENT') });
  await product.clean();
});

test('without settings of its own it looks at what the installed service runs with', async () => {
  const [home, dataDir] = [temporaryFolder(), temporaryFolder()];
  const env = { XDG_CONFIG_HOME: home };
  const { stdout } = await cli(['service', 'print', '--data-dir', dataDir, '--max-steps', '7'], env);
  const unit = join(home, 'systemd/user/qwen-supervisor.service');
  mkdirSync(join(home, 'systemd/user'), { recursive: true });
  writeFileSync(unit, stdout);
  const seen = async (...args: string[]) => (await cli(['doctor', ...args], { ...env, NO_COLOR: '1' })).stdout;
  const looked = await seen();
  expect(looked).toContain(`settings             valid; those of ${unit}`);
  expect(looked).toContain(dataDir);
  expect(await seen('--data-dir', temporaryFolder())).toMatch(/settings +valid$/m);
});
