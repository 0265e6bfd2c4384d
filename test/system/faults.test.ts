import { cpSync, mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { ERRORS, type ErrorCode } from '@qwen-supervisor/protocol/errors';
import { describe, expect, onTestFinished, test } from 'vitest';
import {
  copyCheckpoint,
  OTHER,
  OTHER_GOLDEN,
  POCKET,
  POCKET_GOLDEN,
  safetensorsBytes,
  temporaryFolder,
} from '../fixture-files.js';
import { cli, startProduct, until } from './product.js';

/** `error CODE: message`, then the hint, nothing else; and the code's own exit code. */
async function expectFault(
  args: string[],
  code: ErrorCode,
  message: RegExp,
  env: Record<string, string> = {},
): Promise<void> {
  const result = await cli(args, env);
  const [error, hint, ...rest] = result.stderr.trimEnd().split('\n');
  expect(error).toMatch(new RegExp(`^error ${code}: `));
  expect(error).toMatch(message);
  expect(hint).toBe(`hint: ${ERRORS[code].hint}`);
  expect(rest).toEqual([]);
  expect(result.code).toBe(ERRORS[code].exit);
}

const start = (...args: string[]) => ['start', '--port', '0', '--data-dir', temporaryFolder(), ...args];

describe('start ends at once, with a reason and an exit code of its own, for', () => {
  test('an unknown flag', () => expectFault(start('--prot', '1'), 'USAGE_INVALID', /unknown option '--prot'/));
  test('an unknown command', () => expectFault(['frob'], 'USAGE_INVALID', /unknown command 'frob'/));
  test('no command', () => expectFault([], 'USAGE_INVALID', /no command/));
  test('a port that is no number', () =>
    expectFault(start('--port', 'abc'), 'CONFIG_INVALID', /port \(from the command line\)/));
  test('a bad value in the environment', () =>
    expectFault(start(), 'CONFIG_INVALID', /max-steps \(from the environment\)/, { QWEN_SUPERVISOR_MAX_STEPS: '0' }));
  test('a configuration file that is missing', () =>
    expectFault(start('--config', '/nope.toml'), 'CONFIG_UNREADABLE', /nope\.toml/));
  test('a configuration file that is no TOML', () => {
    const file = join(temporaryFolder(), 'c.toml');
    writeFileSync(file, 'port = ');
    return expectFault(start('--config', file), 'CONFIG_UNREADABLE', /c\.toml/);
  });
  test('an unknown key in the configuration file', () => {
    const file = join(temporaryFolder(), 'c.toml');
    writeFileSync(file, 'prot = 8000');
    return expectFault(start('--config', file), 'CONFIG_INVALID', /unknown key 'prot' in .*c\.toml/);
  });
  test('an address beyond loopback', () => expectFault(start('--host', '0.0.0.0'), 'HOST_REFUSED', /0\.0\.0\.0/));
  test('a taken port', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    onTestFinished(() => void server.close());
    await new Promise((resolve) => server.on('listening', resolve));
    const { port } = server.address() as { port: number };
    await expectFault(start('--port', String(port)), 'PORT_IN_USE', new RegExp(String(port)));
  });
  test('a data folder that cannot be made', () => {
    const file = join(temporaryFolder(), 'file');
    writeFileSync(file, '');
    return expectFault(['start', '--port', '0', '--data-dir', join(file, 'data')], 'DATA_DIR_UNUSABLE', /file/);
  });
  test('a model folder that is missing', () => expectFault(start('--model', '/nope'), 'MODEL_NOT_FOUND', /\/nope/));
  test('an empty model folder', () =>
    expectFault(start('--model', temporaryFolder()), 'MODEL_NOT_FOUND', /model_index\.json/));
  test('a model of another architecture', () => {
    const model = copyCheckpoint(OTHER);
    writeFileSync(join(model, 'model_index.json'), '{"_class_name": "FluxPipeline"}');
    return expectFault(start('--model', model), 'MODEL_UNSUPPORTED', /FluxPipeline/);
  });
  test('a truncated weight file', () => {
    const model = copyCheckpoint(OTHER);
    truncateSync(join(model, 'vae/diffusion_pytorch_model.safetensors'), 1_000_000);
    return expectFault(start('--model', model), 'MODEL_TRUNCATED', /vae\/diffusion_pytorch_model\.safetensors/);
  });
  test('a weight file with a hostile header', () => {
    const model = copyCheckpoint(OTHER);
    const file = join(model, 'vae/diffusion_pytorch_model.safetensors');
    writeFileSync(
      file,
      safetensorsBytes({ a: { dtype: 'F32', shape: [2], data_offsets: [0, 2 ** 60] } }, Buffer.alloc(8)),
    );
    return expectFault(start('--model', model), 'MODEL_INVALID', /tensor a/);
  });
  test('a folder in place of a weight file', () => {
    const model = copyCheckpoint(OTHER);
    const file = join(model, 'vae/diffusion_pytorch_model.safetensors');
    rmSync(file);
    mkdirSync(file);
    return expectFault(start('--model', model), 'MODEL_INVALID', /is a folder/);
  });
  test('a log that cannot be written', () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, 'logs/supervisor.log'), { recursive: true });
    return expectFault(['start', '--port', '0', '--data-dir', folder], 'DATA_DIR_UNUSABLE', /supervisor\.log/);
  });
  test('a weight file that lacks a tensor', () => {
    const model = copyCheckpoint(OTHER);
    writeFileSync(join(model, 'vae/diffusion_pytorch_model.safetensors'), safetensorsBytes({}, Buffer.alloc(0)));
    return expectFault(start('--model', model), 'MODEL_INVALID', /is missing/);
  });
});

test('a second supervisor on the same data folder is refused and told who is there', async () => {
  const product = await startProduct();
  onTestFinished(() => product.clean());
  const pid = String(product.process.pid);
  await expectFault(
    ['start', '--port', '0', '--data-dir', product.dataDir],
    'ALREADY_RUNNING',
    new RegExp(`process ${pid}`),
  );
  expect((await fetch(`${product.url}/healthz`)).status).toBe(200);
});

test('a fault that shows only in the worker leaves it failed, the API up, and the reason in the status', async () => {
  const model = copyCheckpoint(OTHER);
  writeFileSync(join(model, 'tokenizer/vocab.json'), '{"a": "b"}');
  const product = await startProduct(['--model', model]);
  onTestFinished(() => product.clean());
  // Whether it comes just before or just after the worker is given up, a request that waits is not left waiting.
  expect(await product.call('/v1/images/generations', { prompt: 'a' })).toMatchObject({
    status: 503,
    json: { error: { code: 'WORKER_FAILED' } },
  });
  const status = await until(async () => {
    const now = await product.status();
    return now.children[0]?.state === 'failed' ? now : null;
  });
  expect(status.children[0]).toMatchObject({
    restarts: 1,
    reason: expect.stringContaining('MODEL_INVALID'),
    lastExit: { code: 65 },
  });
  const ready = await product.call('/readyz');
  expect(ready).toMatchObject({
    status: 503,
    json: { state: 'failed', reason: expect.stringContaining('vocab.json') },
  });
  expect(await product.call('/api/v1/jobs', { prompt: 'a' })).toMatchObject({
    status: 503,
    json: { error: { code: 'WORKER_FAILED' } },
  });
});

test('a data folder with a very long path works: the socket lies elsewhere', async () => {
  const folder = join(temporaryFolder(), 'x'.repeat(100), 'y'.repeat(100));
  mkdirSync(folder, { recursive: true });
  const product = await startProduct([], folder);
  onTestFinished(() => product.clean());
  expect(await cli(['status', '--data-dir', folder])).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('supervisor'),
  });
});

describe('commands without a supervisor', () => {
  test.each([['status'], ['stop'], ['generate', 'a fox']])('%s says that none runs', (...args) =>
    expectFault([...args, '--data-dir', temporaryFolder()], 'NOT_RUNNING', /no supervisor runs/),
  );
});

describe('model check', () => {
  const check = (model: string, golden: string) =>
    cli(['model', 'check', model, '--golden', golden, '--json', '--data-dir', temporaryFolder()]);

  test('passes a checkpoint that reproduces its golden tensors, with nothing but JSON on stdout', async () => {
    const { code, stdout, stderr } = await check(POCKET, POCKET_GOLDEN);
    expect([code, stderr]).toEqual([0, '']);
    const report = JSON.parse(stdout);
    expect(report.ok).toBe(true);
    expect(report.tensors).toHaveLength(37);
    expect(report.tensors[0]).toEqual({ tensor: 'tokens.0', relativeError: 0, limit: 0, ok: true });
  });

  test('fails one that does not, and names the tensors', async () => {
    const { code, stdout, stderr } = await check(OTHER, mixedGolden());
    expect(code).toBe(ERRORS.GOLDEN_MISMATCH.exit);
    expect(JSON.parse(stdout).ok).toBe(false);
    expect(stderr).toContain('vae.128x128.decoded');
  });

  test('refuses a golden folder that is not there', async () => {
    const { code, stderr } = await check(POCKET, '/nope');
    expect(code).toBe(ERRORS.GOLDEN_INVALID.exit);
    expect(stderr).toMatch(/^error GOLDEN_INVALID: /);
  });

  /** Golden tensors of one model beside the decoder's of another. */
  function mixedGolden(): string {
    const folder = copyCheckpoint(OTHER_GOLDEN);
    rmSync(join(folder, 'vae.safetensors'));
    cpSync(join(POCKET_GOLDEN, 'vae.safetensors'), join(folder, 'vae.safetensors'));
    return folder;
  }
});
