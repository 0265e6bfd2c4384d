/** What newcomers and operators met: terminals, pipes, other users' words, machines that lack something. */
import { spawn } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { REPOSITORY, temporaryFolder } from '../fixture-files.js';
import { cli, type Product, startProduct, until } from './product.js';

describe('with a supervisor that runs', () => {
  let product: Product;
  beforeAll(async () => {
    product = await startProduct();
    await product.ready();
  });
  afterAll(() => product.clean());
  const here = (...args: string[]) => cli([...args, '--data-dir', product.dataDir]);

  test('one that stands still is told by every command within seconds, by its number and state', async () => {
    product.process.kill('SIGSTOP');
    const told = await Promise.all([here('status'), here('generate', 'a fox'), here('restart'), here('events')]);
    product.process.kill('SIGCONT');
    for (const { code, stderr } of told) {
      expect([code, stderr]).toEqual([98, expect.stringContaining(`process ${product.process.pid}`)]);
      expect(stderr).toMatch(/stopped \(T\)/);
    }
    expect((await here('status')).code).toBe(0);
  });

  test('where a picture cannot go is said before it is drawn', async () => {
    const jobs = async () => ((await product.call('/api/v1/jobs')).json as { jobs: object[] }).jobs.length;
    const before = await jobs();
    for (const [output, words] of [
      ['/nonexistent/x.png', /OUTPUT_UNWRITABLE/],
      [join(product.dataDir, 'none/'), /OUTPUT_UNWRITABLE/],
      ['x.gif', /USAGE_INVALID: --output: '\.gif'/],
    ] as const) {
      const { code, stderr } = await here('generate', 'a fox', '-o', output);
      expect([code !== 0, stderr]).toEqual([true, expect.stringMatching(words)]);
    }
    expect(await jobs()).toBe(before);
  });

  test('a picture goes into a folder by its own name, and into a file in the format of that name', async () => {
    const folder = temporaryFolder();
    const into = await here('generate', 'a', 'fox', '--steps', '1', '-o', folder);
    expect(into.stdout).toMatch(/job_[0-9a-f]{24}\.png/);
    for (const [name, format] of [
      ['x.jpg', 'jpeg'],
      ['x.webp', 'webp'],
      ['x.png', 'png'],
      ['x', 'png'],
    ] as const) {
      await here('generate', 'a fox', '--steps', '1', '-o', join(folder, name));
      expect((await sharp(join(folder, name)).metadata()).format, name).toBe(format);
    }
  });

  test.each([
    [['--steps', 'abc'], "--steps: 'abc' is no number"],
    [['--seed', '1.5'], '--seed: '],
    [['--size', '17x32'], '--size: must be a multiple of 16'],
    [['--size', 'large'], "--size: 'large' is not WIDTHxHEIGHT"],
    [['--cfg', '5000'], '--cfg: '],
  ])('%j is refused in the words of the command line', async (flags, words) => {
    const { code, stderr } = await here('generate', 'a fox', ...flags);
    expect([code, stderr]).toEqual([64, expect.stringContaining(`USAGE_INVALID: ${words}`)]);
  });

  test('localhost is both loopbacks', async () => {
    const port = new URL(product.url).port;
    for (const host of ['127.0.0.1', '[::1]']) expect((await fetch(`http://${host}:${port}/healthz`)).status).toBe(200);
  });

  test('a prompt that would move the cursor does not, in any command', async () => {
    const prompt = 'a \u001b]0;OWNED\u0007 fox \u009b31m \u202e';
    await product.call('/api/v1/jobs', { prompt, numInferenceSteps: 1 });
    const shown = await Promise.all([here('events'), here('status'), here('logs'), here('status', '--json')]);
    for (const { stdout } of shown) {
      // biome-ignore lint/suspicious/noControlCharactersInRegex: these must not be there
      expect(stdout).not.toMatch(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]/);
    }
    expect(shown[0]?.stdout).toContain('OWNED');
  });
});

test('a socket that is not ours is not spoken to, whatever a stale note says', async () => {
  const dataDir = temporaryFolder();
  const folder = temporaryFolder();
  const socket = join(folder, 'planted.sock');
  let spokenTo = false;
  const server = createServer(() => {
    spokenTo = true;
  }).listen(socket);
  onTestFinished(() => void server.close());
  writeFileSync(join(dataDir, 'supervisor.json'), JSON.stringify({ pid: 1, socket, url: 'http://x' }));
  // Its folder is open to others.
  chmodSync(folder, 0o755);
  const { code, stderr } = await cli(['status', '--data-dir', dataDir]);
  expect([code, stderr, spokenTo]).toEqual([74, expect.stringContaining('NOT_RUNNING'), false]);
});

test('nohup protects from the end of the terminal', async () => {
  const dataDir = temporaryFolder();
  const bin = join(REPOSITORY, 'bin/qwen-supervisor.js');
  const command = `trap '' HUP; exec "${process.execPath}" "${bin}" start --port 0 --data-dir "${dataDir}" > "${dataDir}/out"`;
  const supervisor = spawn('sh', ['-c', command]);
  const ended = new Promise((resolve) => supervisor.on('exit', resolve));
  await until(async () => (existsSync(join(dataDir, 'supervisor.json')) ? true : null));
  supervisor.kill('SIGHUP');
  expect((await cli(['status', '--data-dir', dataDir])).code).toBe(0);
  await cli(['stop', '--data-dir', dataDir]);
  expect(await ended).toBe(0);
});

test('a variable of a Kubernetes Service of our name is no setting of ours', async () => {
  const env = { QWEN_SUPERVISOR_PORT: 'tcp://10.43.0.7:8000', QWEN_SUPERVISOR_SERVICE_PORT: '8000' };
  const product = await startProduct([], undefined, env);
  onTestFinished(() => product.clean());
  expect((await cli(['status', '--data-dir', product.dataDir], env)).code).toBe(0);
  expect(readFileSync(join(product.dataDir, 'logs/supervisor.log'), 'utf8')).toContain('enableServiceLinks');
});

test('a runtime folder that cannot hold a socket is done without', async () => {
  for (const folder of ['/proc', '/nonexistent/x', temporaryFolder().padEnd(150, '/long')]) {
    const product = await startProduct([], undefined, { XDG_RUNTIME_DIR: folder });
    expect((await cli(['status', '--data-dir', product.dataDir])).code, folder).toBe(0);
    await product.clean();
  }
});

test('a folder that is locked without a supervisor is not called one that runs', async () => {
  const dataDir = temporaryFolder();
  const hold = `import('libsql').then(({ default: Database }) => {
    const db = new Database(${JSON.stringify(join(dataDir, 'jobs.db'))});
    db.exec('PRAGMA locking_mode = EXCLUSIVE; CREATE TABLE t (x); BEGIN EXCLUSIVE;');
    console.log('held');
    setInterval(() => db, 1000);
  })`;
  const holder = spawn(process.execPath, ['--input-type=module', '-e', hold], { cwd: REPOSITORY });
  onTestFinished(() => void holder.kill('SIGKILL'));
  await new Promise((resolve) => holder.stdout.once('data', resolve));
  const { code, stderr } = await cli(['start', '--port', '0', '--data-dir', dataDir]);
  expect([code, stderr]).toEqual([73, expect.stringMatching(/locked, and no supervisor runs there .*cannot lock/)]);
});

test('a library that cannot be loaded is told once, by its name, and nothing is tried again', async () => {
  // The packages by links, but for the one that is damaged.
  const copy = temporaryFolder();
  symlinkSync(join(REPOSITORY, 'package.json'), join(copy, 'package.json'));
  cpSync(join(REPOSITORY, 'packages'), join(copy, 'packages'), {
    recursive: true,
    filter: (path) => !path.includes('/src/') && !path.endsWith('/src'),
  });
  cpSync(join(REPOSITORY, 'bin'), join(copy, 'bin'), { recursive: true });
  const modules = join(copy, 'node_modules');
  mkdirSync(modules);
  for (const name of readdirSync(join(REPOSITORY, 'node_modules'))) {
    if (name === '@qwen-supervisor' || name === 'onnxruntime-node') continue;
    symlinkSync(join(REPOSITORY, 'node_modules', name), join(modules, name));
  }
  mkdirSync(join(modules, '@qwen-supervisor'));
  for (const name of readdirSync(join(copy, 'packages')))
    symlinkSync(join(copy, 'packages', name), join(modules, '@qwen-supervisor', name));
  // All of it but the library itself.
  const [from, to] = [REPOSITORY, copy].map((root) => join(root, 'node_modules/onnxruntime-node')) as [string, string];
  cpSync(from, to, { recursive: true, filter: (path) => !/onnxruntime-node\/bin(\/|$)/.test(path) });
  const dataDir = temporaryFolder();
  const args = [join(copy, 'bin/qwen-supervisor.js'), 'start', '--port', '0', '--data-dir', dataDir];
  const supervisor = spawn(process.execPath, args);
  onTestFinished(() => void supervisor.kill('SIGTERM'));
  const worker = await until(async () => {
    const { stdout } = await cli(['status', '--json', '--data-dir', dataDir]);
    const { children = [] } = JSON.parse(stdout || '{}') as {
      children?: { name: string; state: string; reason: string; restarts: number }[];
    };
    return children.find(({ name, state }) => name === 'inference' && state === 'failed') ?? null;
  });
  expect(worker).toMatchObject({
    restarts: 1,
    reason: expect.stringMatching(/RUNTIME_UNLOADABLE: .*onnxruntime_binding/),
  });
});
