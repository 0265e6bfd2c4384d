/** The program as others get it: packed, installed where nothing of this repository is, started, and drawing. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { REPOSITORY, temporaryFolder } from '../fixture-files.js';

// What npm has set for the tests themselves would be obeyed by the npm within.
const clean = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.toLowerCase().startsWith('npm_')),
);

function run(command: string, args: string[], cwd: string, env: Record<string, string> = {}): string {
  return execFileSync(command, args, {
    cwd,
    encoding: 'utf8',
    env: { ...clean, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

function packed(folder: string): string {
  run('npm', ['pack', '--silent', '--pack-destination', folder], REPOSITORY);
  const [file] = readdirSync(folder).filter((name) => name.endsWith('.tgz'));
  return join(folder, file as string);
}

/** The script of the page, as a browser gets it. */
async function pageAt(address: string): Promise<string> {
  const document = await (await fetch(address)).text();
  const [, script = ''] = /src="([^"]+\.js)"/.exec(document) ?? [];
  return (await fetch(new URL(script, address))).text();
}

/** Starts, draws, shows its page, stops. */
async function draws(program: string, folder: string): Promise<void> {
  const dataDir = join(folder, 'data');
  const supervisor = spawn(program, ['start', '--port', '0', '--data-dir', dataDir], { env: clean });
  onTestFinished(() => void supervisor.kill('SIGKILL'));
  const ended = new Promise<number | null>((resolve) => supervisor.on('exit', resolve));
  await new Promise((resolve) => supervisor.stdout.once('data', resolve));
  const picture = join(folder, 'fox.png');
  run(program, ['generate', 'a fox', '--steps', '2', '--data-dir', dataDir, '-o', picture], folder);
  expect(existsSync(picture)).toBe(true);
  const page = run(program, ['open', '--print', '--data-dir', dataDir], folder).trim();
  expect(await pageAt(page)).toMatch(/createRoot|react/);
  run(program, ['stop', '--data-dir', dataDir], folder);
  expect(await ended).toBe(0);
}

/** What a stack trace says leads to the line that was written, which is there. */
function tellsItsLines(program: string, folder: string): void {
  const installed = realpathSync(program);
  const packages = join(dirname(installed), '../node_modules/@qwen-supervisor');
  const maps = readdirSync(packages, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.js.map'));
  expect(maps.length).toBeGreaterThan(100);
  for (const name of maps) {
    const map = join(packages, name);
    for (const source of JSON.parse(readFileSync(map, 'utf8')).sources)
      expect(existsSync(join(dirname(map), source)), `${name} leads to ${source}`).toBe(true);
  }
  const script = `const { CodedError } = await import(${JSON.stringify(join(packages, 'protocol/dist/errors.js'))});
    console.log(CodedError.from({ code: 'INTERNAL', message: 'x' }).stack)`;
  const thrown = spawnSync(process.execPath, ['--enable-source-maps', '--input-type=module', '-e', script], {
    cwd: folder,
    encoding: 'utf8',
    env: clean,
  });
  const [, file, line] = /\((\/.*protocol\/src\/errors\.ts):(\d+):\d+\)/.exec(thrown.stdout) ?? [];
  expect(readFileSync(file as string, 'utf8').split('\n')[Number(line) - 1]).toContain('new CodedError(');
}

/** An update to another build of the same release, under a supervisor that runs. */
async function noticesAnotherBuild(program: string, folder: string): Promise<void> {
  const dataDir = join(folder, 'data');
  const at = ['--data-dir', dataDir];
  const supervisor = spawn(program, ['start', '--port', '0', ...at], { env: clean });
  onTestFinished(() => void supervisor.kill('SIGKILL'));
  const ended = new Promise<number | null>((resolve) => supervisor.on('exit', resolve));
  await new Promise((resolve) => supervisor.stdout.once('data', resolve));
  run(program, ['generate', 'a fox', '--steps', '1', ...at, '-o', join(folder, 'before.png')], folder);
  const [worker] = JSON.parse(run(program, ['status', '--json', ...at], folder)).children;
  const installed = readdirSync(join(folder, 'project'), { recursive: true, encoding: 'utf8' });
  const build = installed.find((path) => path.endsWith('@qwen-supervisor/ipc/dist/build-id')) as string;
  writeFileSync(join(folder, 'project', build), '0123456789ab');

  expect(() => run(program, ['jobs', 'list', ...at], folder)).toThrow(/VERSION_MISMATCH.*\+0123456789ab[\s\S]*hint: /);
  process.kill(worker.pid, 'SIGKILL');
  const log = () => readFileSync(join(dataDir, 'logs/supervisor.log'), 'utf8');
  await expect.poll(log, { timeout: 60_000 }).toMatch(/VERSION_MISMATCH.*its child [\d.]+\+0123456789ab/);
  run(program, ['stop', ...at], folder);
  expect(await ended).toBe(0);
}

/** The whole system, run by a user who may write to nothing of it. */
function verifiesAsNobody(program: string, folder: string): void {
  chmodSync(folder, 0o755);
  const home = join(folder, 'home');
  mkdirSync(home);
  chownSync(home, NOBODY, NOBODY);
  const user = ['--reuid', String(NOBODY), '--regid', String(NOBODY), '--clear-groups', program];
  const asNobody = (...args: string[]) =>
    JSON.parse(run('setpriv', [...user, ...args, '--json'], home, { HOME: home }));
  expect(asNobody('verify').findings.filter(({ result }: { result: string }) => result !== 'pass')).toEqual([]);
  expect(asNobody('doctor', '--port', '0').failed).toBe(0);
}

const NOBODY = 65534;

test('installed for all, without any script being run, it starts and draws', async () => {
  const folder = temporaryFolder();
  const prefix = join(folder, 'prefix');
  run('npm', ['install', '--global', '--ignore-scripts', '--prefix', prefix, packed(folder)], folder);
  const program = join(prefix, 'bin', 'qwen-supervisor');
  expect(run(program, ['--version'], folder)).toMatch(/^\d+\.\d+\.\d+\+[0-9a-f]{12}\n$/);
  await draws(program, folder);
  tellsItsLines(program, folder);
  if (process.getuid?.() === 0) verifiesAsNobody(program, folder);
  // Half of an installation is told as such.
  rmSync(join(prefix, 'lib/node_modules/qwen-supervisor/node_modules/commander'), { recursive: true });
  expect(() => run(program, ['--version'], folder)).toThrow(/INSTALL_INCOMPLETE: the package commander is missing/);
});

test('as a dependency of a project, with scripts, it starts and draws', async () => {
  const folder = temporaryFolder();
  const project = join(folder, 'project');
  mkdirSync(project);
  writeFileSync(join(project, 'package.json'), '{"name": "project", "version": "1.0.0"}');
  // What the script would fetch is for graphics cards, and from elsewhere.
  run('npm', ['install', '--ignore-scripts=false', packed(folder)], project, { ONNXRUNTIME_NODE_INSTALL: 'skip' });
  const program = join(project, 'node_modules', '.bin', 'qwen-supervisor');
  await draws(program, folder);
  await noticesAnotherBuild(program, folder);
});
