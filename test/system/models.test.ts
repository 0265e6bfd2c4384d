/** Models that are added: prepared weights, interrupted and whole, and pictures drawn with them. */
import { createHash } from 'node:crypto';
import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { readSafetensorsHeader } from '@qwen-supervisor/model/safetensors';
import { execa } from 'execa';
import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { copyCheckpoint, OTHER, POCKET, REPOSITORY, temporaryFolder } from '../fixture-files.js';
import { cli, startProduct, until } from './product.js';

const FOX = { prompt: 'a fox on a teal background', seed: 3, numInferenceSteps: 60 };

const model = (dataDir: string, ...args: string[]) => cli(['model', ...args, '--data-dir', dataDir]);
const digest = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex');
const prepared = (dataDir: string, name: string) =>
  ['transformer', 'text_encoder'].map((part) => digest(join(dataDir, 'models', name, `${part}.safetensors`)));

describe('model add', () => {
  test('killed again and again, it goes on, and the files are the same bytes as without a kill', async () => {
    const [peace, war] = [temporaryFolder(), temporaryFolder()];
    expect(await model(peace, 'add', POCKET, '--quantize', 'int4')).toMatchObject({ code: 0 });
    for (let n = 0; n < 12; n++) {
      const main = join(REPOSITORY, 'packages/model/dist/registry/models-main.js');
      const command = {
        do: 'add',
        folder: POCKET,
        quantize: 'int4',
        quality: 'standard',
        acceptLicense: false,
        memoryBytes: null,
      };
      const run = execa(process.execPath, [main, JSON.stringify({ ...command, dataDir: war, json: true })], {
        reject: false,
      });
      const timer = setTimeout(() => run.kill('SIGKILL'), 180 + 40 * n);
      await run;
      clearTimeout(timer);
      const isThere = existsSync(join(war, 'models/pocket-int4/model.json'));
      expect(JSON.parse((await model(war, 'list', '--json')).stdout)).toHaveLength(isThere ? 1 : 0);
      if (isThere) await model(war, 'remove', 'pocket-int4');
    }
    expect((await model(war, 'add', POCKET, '--quantize', 'int4')).code).toBe(0);
    expect(prepared(war, 'pocket-int4')).toEqual(prepared(peace, 'pocket-int4'));
    expect(readdirSync(join(war, 'models/pocket-int4')).filter((name) => /part|journal|tmp/.test(name))).toEqual([]);
  });

  test.each([
    ['transformer/diffusion_pytorch_model-00002-of-00003.safetensors', 'to_q.weight'],
    ['vae/diffusion_pytorch_model.safetensors', 'decoder.conv_in.weight'],
    ['vae/diffusion_pytorch_model.safetensors', 'encoder.conv_out.bias'],
  ])('a value in %s that is no number is found by its tensor, and nothing is registered', async (path, name) => {
    const folder = copyCheckpoint(POCKET);
    const file = join(folder, path);
    const bytes = readFileSync(file);
    const tensor = [...readSafetensorsHeader(file).values()].find((one) => one.name.endsWith(name));
    // All bits set are no number in every format.
    bytes.fill(0xff, tensor?.offset, (tensor?.offset ?? 0) + 4);
    writeFileSync(file, bytes);
    const dataDir = temporaryFolder();
    const result = await model(dataDir, 'add', folder);
    expect(result).toMatchObject({ code: 65 });
    expect(result.stderr).toContain(`${tensor?.name} has a value that is no number`);
    expect(JSON.parse((await model(dataDir, 'list', '--json')).stdout)).toEqual([]);
  });

  test('a licence that forbids commercial use is shown, and asked for', async () => {
    const folder = copyCheckpoint(POCKET);
    writeFileSync(join(folder, 'README.md'), '---\nlicense: other\nlicense_name: qwen-research-license\n---\n');
    const dataDir = temporaryFolder();
    const refused = await model(dataDir, 'add', folder);
    expect(refused).toMatchObject({ code: 77 });
    expect(refused.stderr).toContain('LICENSE_NOT_ACCEPTED');
    expect((await model(dataDir, 'add', folder, '--accept-license')).code).toBe(0);
  });

  test('of two at once one is told so, or finds the model there', async () => {
    const dataDir = temporaryFolder();
    const both = await Promise.all([model(dataDir, 'add', POCKET), model(dataDir, 'add', POCKET)]);
    expect(both.filter(({ code }) => code === 0)).toHaveLength(1);
    expect(both.find(({ code }) => code !== 0)?.stderr).toMatch(/MODEL_BEING_ADDED|MODEL_EXISTS/);
    expect((await model(dataDir, 'verify', 'pocket-int8')).code).toBe(0);
  });

  test('--check-only writes nothing', async () => {
    const dataDir = temporaryFolder();
    const { code, stdout } = await model(dataDir, 'add', POCKET, '--check-only', '--json');
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ name: 'pocket-int8', license: null });
    expect(readdirSync(dataDir)).toEqual([]);
  });
});

test('prepared weights that were damaged, and a checkpoint that was changed, are found', async () => {
  const dataDir = temporaryFolder();
  const folder = copyCheckpoint(POCKET);
  await model(dataDir, 'add', folder, '--name', 'mine');
  const file = join(dataDir, 'models/mine/transformer.safetensors');
  const bytes = readFileSync(file);
  bytes.writeUInt8(bytes.readUInt8(bytes.length - 9) ^ 1, bytes.length - 9);
  writeFileSync(file, bytes);
  const damaged = await model(dataDir, 'verify', 'mine');
  expect(damaged).toMatchObject({ code: 65 });
  expect(damaged.stderr).toContain('1 tensors are damaged');
  cpSync(join(folder, 'vae/config.json'), join(folder, 'tokenizer/new.json'));
  const started = await cli(['start', '--model', 'mine', '--port', '0', '--data-dir', dataDir]);
  expect(started).toMatchObject({ code: 65 });
  expect(started.stderr).toContain('MODEL_CHANGED');
});

test.each(['int8', 'int4'])(
  'with %s weights a picture is drawn, the same after a kill in the middle',
  async (quantize) => {
    const dataDir = temporaryFolder();
    await model(dataDir, 'add', POCKET, '--quantize', quantize);
    const product = await startProduct(['--model', `pocket-${quantize}`], dataDir);
    try {
      const first = await product.ended((await product.submit(FOX)).id);
      const second = await product.submit(FOX);
      await until(async () => ((await product.job(second.id)).step > 4 ? true : null));
      process.kill(await product.pidOf('inference'), 'SIGKILL');
      const resumed = await product.ended(second.id);
      expect(resumed).toMatchObject({ status: 'done', attempts: 2 });
      expect(resumed.images[0]?.sha256).toBe(first.images[0]?.sha256);
    } finally {
      await product.clean();
    }
  },
);

test('the model in use is what a start without a model runs, until it is removed', async () => {
  const dataDir = temporaryFolder();
  await model(dataDir, 'add', POCKET, '--name', 'mine');
  expect((await model(dataDir, 'use', 'mine')).code).toBe(0);
  expect(JSON.parse((await model(dataDir, 'list', '--json')).stdout)).toMatchObject([{ name: 'mine', inUse: true }]);
  const product = await startProduct([], dataDir);
  expect((await product.status()).model).toMatchObject({ folder: 'mine' });
  const kept = await model(dataDir, 'remove', 'mine');
  expect(kept).toMatchObject({ code: 91 });
  expect(kept.stderr).toContain('MODEL_RUNNING');
  await product.clean();
  await model(dataDir, 'remove', 'mine');
  const again = await startProduct([], dataDir);
  expect((await again.status()).model.folder).toMatch(/pocket-model/);
  await again.clean();
});

describe('model plan', () => {
  test('says what fits into so much memory, and how long it takes', async () => {
    const dataDir = temporaryFolder();
    const { code, stdout } = await model(dataDir, 'plan', POCKET, '--memory', '4GiB', '--size', '256x192', '--json');
    expect(code).toBe(0);
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({
      fits: true,
      availableBytes: 4 * 2 ** 30,
      wish: { width: 256, height: 192, steps: 20, guided: true },
    });
    expect(report.plan.residentPixels).toBeGreaterThan(256 * 192);
    const lines = (await model(dataDir, 'plan', POCKET, '--memory', '4GiB')).stdout;
    expect(lines).toMatch(/text encoder .* GB/);
    expect(lines).toMatch(/calculated for 128x128: .* a step, with guidance/);
  });

  test('asks the configuration what would be started, and in how much memory', async () => {
    const config = join(temporaryFolder(), 'config.toml');
    writeFileSync(config, `model = "${OTHER}"\nmemory-gigabytes = 3\ndata-dir = "${temporaryFolder()}"\n`);
    const { stdout } = await cli(['model', 'plan', '--json'], { QWEN_SUPERVISOR_CONFIG: config });
    expect(JSON.parse(stdout)).toMatchObject({ name: basename(OTHER), availableBytes: 3e9 });
  });

  test('of a name that nobody has given says so', async () => {
    const { code, stderr } = await model(temporaryFolder(), 'plan', 'mein');
    expect(code).toBe(66);
    expect(stderr).toMatch(/MODEL_NOT_FOUND.*mein/);
  });

  test('says what is missing where it does not fit, and fails', async () => {
    const { code, stdout } = await model(temporaryFolder(), 'plan', POCKET, '--memory', '200MB');
    expect(code).toBe(93);
    expect(stdout).toMatch(/does not fit: it needs 0\.\d GB/);
  });

  test.each([
    ['--memory', 'much'],
    ['--size', '100x100'],
    ['--steps', '0'],
  ])('%s %s is no such thing', async (flag, value) => {
    const { code, stderr } = await model(temporaryFolder(), 'plan', POCKET, flag, value);
    expect(code).toBe(64);
    expect(stderr).toContain(`${flag}: '${value}'`);
  });
});

test('a start for which there is no memory is refused before a process is spawned', async () => {
  const started = await cli(['start', '--memory-gigabytes', '0.3', '--port', '0', '--data-dir', temporaryFolder()]);
  expect(started).toMatchObject({ code: 93 });
  expect(started.stderr).toMatch(/MODEL_TOO_LARGE: pocket: needs 0\.\d GB of memory, and there are 0\.3 GB for it/);
});

test('a picture for which there is no memory is refused when it is sent, with the size that can be drawn', async () => {
  const product = await startProduct(['--memory-gigabytes', '1', '--max-pixels', '16777216']);
  try {
    const { status, json } = await product.call('/api/v1/jobs', { prompt: 'a', width: 4096, height: 4096 });
    expect(status).toBe(400);
    const { error } = json as { error: { code: string; message: string } };
    expect(error.code).toBe('SIZE_TOO_LARGE');
    const [, size = ''] = /of this shape here is (\d+)x/.exec(error.message) ?? [];
    expect(Number(size)).toBeGreaterThan(256);
    expect(Number(size)).toBeLessThan(4096);
  } finally {
    await product.clean();
  }
});

test('a picture in int8 is not to be told from one in float32, and in int4 it is the same picture', async () => {
  const pixels = async (args: string[], dataDir: string) => {
    const product = await startProduct(args, dataDir);
    const job = await product.ended((await product.submit({ ...FOX, numInferenceSteps: 20 })).id);
    const png = Buffer.from(await (await product.fetch(job.images[0]?.url ?? '')).arrayBuffer());
    await product.clean();
    return sharp(png).removeAlpha().raw().toBuffer();
  };
  const exact = await pixels([], temporaryFolder());
  const decibels = async (quantize: string) => {
    const dataDir = temporaryFolder();
    await model(dataDir, 'add', POCKET, '--quantize', quantize, '--name', quantize);
    const near = await pixels(['--model', quantize], dataDir);
    const error = near.reduce((sum, value, i) => sum + (value - (exact[i] as number)) ** 2, 0) / near.length;
    return 10 * Math.log10(255 ** 2 / error);
  };
  expect(await decibels('int8')).toBeGreaterThan(33);
  expect(await decibels('int4')).toBeGreaterThan(21);
});

test('what is not a model is told in a line', async () => {
  const dataDir = temporaryFolder();
  expect((await model(dataDir, 'show', 'nothing')).stderr).toContain('MODEL_NOT_REGISTERED');
  expect((await model(dataDir, 'add', POCKET, '--quantize', 'int3')).stderr).toContain('USAGE_INVALID');
  expect((await model(dataDir, 'add', POCKET, '--name', '../x')).stderr).toContain('is no name for a model');
});

test('a size that is left out is one that is allowed, also over a picture', async () => {
  const product = await startProduct(['--max-pixels', '8192']);
  try {
    const job = await product.submit({ ...FOX, numInferenceSteps: 1 });
    expect(job).toMatchObject({ width: 80, height: 80 });
    await product.ended(job.id);
    const over = await product.submit({ ...FOX, numInferenceSteps: 1, initImage: job.id });
    expect(over).toMatchObject({ width: 80, height: 80 });
    const { models } = (await product.call('/api/v1/models')).json as { models: { sizes: object }[] };
    expect(models[0]?.sizes).toMatchObject({ '16:9': [112, 64] });
  } finally {
    await product.clean();
  }
});

test('a model that was unloaded is planned anew before it is loaded: others may have the memory by then', async () => {
  const product = await startProduct();
  try {
    await product.ended((await product.submit(FOX)).id);
    const planned = async () =>
      (await cli(['logs', '--data-dir', product.dataDir, '-n', '1000'])).stdout.includes('planned again');
    expect(await planned()).toBe(false);
    await product.call('/api/v1/models/pocket/unload', '');
    await until(async () => ((await product.status()).model.state === 'unloaded' ? true : null));
    expect(await product.ended((await product.submit(FOX)).id)).toMatchObject({ status: 'done' });
    expect(await planned()).toBe(true);
  } finally {
    await product.clean();
  }
});
