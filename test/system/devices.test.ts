/** What computes: chosen, left when it fails, and told. The card is SwiftShader, a Vulkan driver in software. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isTerminal, type Job } from '@qwen-supervisor/protocol/job';
import { execa } from 'execa';
import sharp from 'sharp';
import { afterEach, describe, expect, test } from 'vitest';
import { OTHER, POCKET, REPOSITORY, temporaryFolder } from '../fixture-files.js';
import { swiftShader } from '../swiftshader.js';
import { cli, NASTY, type Product, startProduct, until } from './product.js';

const SMALL = { prompt: 'a fox on a teal background', seed: 3, width: 64, height: 64, numInferenceSteps: 4 };

const PATIENCE_MS = 400_000;

let product: Product | null = null;
afterEach(async () => {
  await product?.clean();
  product = null;
});

const start = async (args: string[], env: Record<string, string> = {}, dataDir = temporaryFolder()) => {
  product = await startProduct(args, dataDir, env);
  // In software a card takes a minute to load, on a busy machine some.
  await until(async () => ((await product?.status())?.model.state === 'ready' ? true : null), PATIENCE_MS);
  return product;
};

function ended(of: Product, id: string): Promise<Job> {
  return until(async () => {
    const job = await of.job(id);
    return isTerminal(job.status) ? job : null;
  }, PATIENCE_MS);
}

async function pixels(of: Product, job: Job): Promise<Buffer> {
  const answer = await of.fetch(`/api/v1/images/${job.images[0]?.id}`);
  return sharp(Buffer.from(await answer.arrayBuffer()))
    .raw()
    .toBuffer();
}

/** Peak signal to noise, decibels. */
function agreement(a: Buffer, b: Buffer): number {
  const error = a.reduce((sum, value, i) => sum + (value - (b[i] as number)) ** 2, 0) / a.length;
  return 10 * Math.log10(255 ** 2 / error);
}

describe('without a graphics card', () => {
  test('auto takes the processor, and says why in status, metrics and the job', async () => {
    const here = await start([]);
    expect((await here.status()).device).toMatchObject({ device: 'cpu', reason: 'there is no graphics card' });
    expect(await (await here.fetch('/metrics')).text()).toMatch(
      /^qwen_supervisor_device_info\{child="inference",device="cpu",name=".*",reason="there is no graphics card"\} 1$/m,
    );
    expect(await here.ended((await here.submit(SMALL)).id)).toMatchObject({
      devices: ['cpu'],
      deviceReason: 'there is no graphics card',
    });
    const { stdout } = await cli(['status', '--data-dir', here.dataDir]);
    expect(stdout).toMatch(/^device +cpu +.*: there is no graphics card$/m);
  });

  test('a card that was asked for gives way to the processor, and says so', async () => {
    const { status } = await start(['--device', 'webgpu']);
    expect((await status()).device).toMatchObject({
      device: 'cpu',
      reason: expect.stringMatching(/^webgpu does not work; DEVICE_UNAVAILABLE: webgpu:0: /),
    });
  });

  test.each([
    ['webgpu', 'DEVICE_UNAVAILABLE'],
    ['cuda', 'CUDA_RUNTIME_INCOMPLETE'],
  ])('%s without a fallback is refused before anything is spawned', async (device, code) => {
    const args = ['start', '--port', '0', '--device', device, '--device-fallback', 'none'];
    const { code: exit, stderr } = await cli([...args, '--data-dir', temporaryFolder()]);
    expect([exit, stderr]).toEqual([93, expect.stringContaining(`error ${code}: ${device}:0`)]);
  });

  test('device list shows what there is, and what to do about what is not', async () => {
    const { stdout } = await cli(['device', 'list', '--json', '--data-dir', temporaryFolder()], {
      QWEN_SUPERVISOR_DEVICE: 'cuda',
    });
    expect(JSON.parse(stdout).devices).toMatchObject([
      { device: 'cuda:0', works: false, taken: null, step: expect.stringContaining('qwen-supervisor gpu install') },
      { device: 'cpu', works: true, taken: 'cuda does not work' },
    ]);
  });
});

test('a model is planned again when the memory or the device may be others, and kept where there is nothing else', async () => {
  const script = join(REPOSITORY, 'test/fixtures/children/plans-again.mjs');
  const { stdout } = await execa(process.execPath, [script, POCKET, temporaryFolder()]);
  const [kept, another, waiting] = [
    { isOld: false, isAnother: false, hasNext: false },
    { isOld: false, isAnother: true, hasNext: false },
    { isOld: true, isAnother: false, hasNext: false },
  ];
  expect(JSON.parse(stdout)).toEqual({
    opened: kept,
    unloaded: waiting,
    'looked at': another,
    crashed: kept,
    'another worker is out of memory': kept,
    'out of memory': waiting,
    'looked at after that': another,
    'without another device': waiting,
    'after a restart of the API': waiting,
    'after a restart of the worker': another,
  });
});

test("a block of Qwen-Image's width is measured, whatever the model, and the plan of a card goes by it", async () => {
  const bench = join(REPOSITORY, 'packages/inference/dist/bench-main.js');
  const dataDir = temporaryFolder();
  const device = { device: 'cpu', name: 'a processor', driver: null };
  const command = { ...device, threads: 2, sides: [64, 128], json: true, dataDir };
  const { stdout } = await execa(process.execPath, [bench, JSON.stringify(command)]);
  const report = JSON.parse(stdout) as { blocks: { operationsPerSecond: number }[] };
  expect(report).toMatchObject({
    attention: 'fused',
    compute: 'float32',
    difference: null,
    peak: expect.any(Number),
    blocks: [{ side: 64 }, { side: 128 }],
  });
  for (const { operationsPerSecond } of report.blocks) expect(operationsPerSecond).toBeGreaterThan(1e8);

  // As if it had been measured on a card.
  const probes = join(dataDir, 'probes.json');
  const card = { device: 'cuda:0', name: 'NVIDIA L4', driver: 'nvidia 580.1' };
  const [probe] = JSON.parse(readFileSync(probes, 'utf8'));
  writeFileSync(probes, JSON.stringify([{ ...probe, ...card }]));
  const planFor = async (question: object) => {
    const asked = {
      target: POCKET,
      dataDir,
      memoryBytes: 8e9,
      heldBytes: 0,
      sharers: 1,
      size: null,
      steps: 10,
      threads: 2,
    };
    const entry = join(REPOSITORY, 'packages/inference/dist/plan-main.js');
    const run = (json: boolean) =>
      execa(process.execPath, [entry, JSON.stringify({ ...asked, card: null, ...question, json })]);
    return { report: JSON.parse((await run(true)).stdout), lines: (await run(false)).stdout };
  };
  const planned = await planFor(card);
  expect(planned.report.seconds).toEqual({ step: expect.any(Number), picture: null });
  expect(planned.lines).toMatch(
    /by the last probe for 128x128: \S+ s a step, with guidance, .* for 10 steps, and the decoding$/m,
  );
  // Another driver may be faster, or slower.
  const other = await planFor({ ...card, driver: 'nvidia 590.2' });
  expect(other.report.seconds).toBeNull();
  expect(other.lines).toContain('qwen-supervisor bench --probe --device cuda:0');
  // Since then it is to compute in something else.
  const narrow = { kind: 'cuda', bytes: 24e9, attention: 'fused', compute: 'bfloat16' };
  expect((await planFor({ ...card, card: narrow })).report.seconds).toBeNull();
});

describe('on a graphics card', { timeout: 900_000 }, () => {
  const card = swiftShader();
  const testOnCard = test.skipIf(card === null);
  const on = async (env: Record<string, string> = {}, ...args: string[]) => {
    // What colours the previews is kept: the processor finds it in a second, this card in half a minute.
    const dataDir = temporaryFolder();
    const first = await start(['--device', 'cpu', ...args], {}, dataDir);
    first.process.kill('SIGTERM');
    await first.exited;
    return start(['--device', 'webgpu', ...args], { ...card, ...env }, dataDir);
  };

  testOnCard('model plan knows what would compute', async () => {
    const env = { ...card, QWEN_SUPERVISOR_DEVICE: 'webgpu' };
    const { stdout } = await cli(['model', 'plan', '--json', '--data-dir', temporaryFolder()], env);
    // Of this one nothing is known but that it works.
    expect(JSON.parse(stdout)).toMatchObject({ device: 'webgpu:0', cardBytes: null, seconds: null, fits: true });
  });

  testOnCard('a picture is that of the processor, also after a kill in the middle, and a cancel is heard', async () => {
    const there = await on();
    expect((await there.status()).device).toMatchObject({ device: 'webgpu:0', reason: 'asked for' });
    const first = await there.submit(SMALL);
    await until(async () => ((await there.job(first.id)).step > 1 ? true : null), PATIENCE_MS);
    process.kill(await there.pidOf('inference'), 'SIGKILL');
    const job = await ended(there, first.id);
    expect(job).toMatchObject({ status: 'done', attempts: 2, startedOverReason: null, devices: ['webgpu:0'] });
    expect(job.resumedAtStep).toBeGreaterThan(0);
    const drawn = await pixels(there, job);
    const long = await there.submit({ ...SMALL, numInferenceSteps: 1000 });
    await until(async () => ((await there.job(long.id)).step > 0 ? true : null), PATIENCE_MS);
    await there.call(`/api/v1/jobs/${long.id}/cancel`, {});
    expect(await ended(there, long.id)).toMatchObject({ status: 'cancelled' });
    await there.clean();
    const here = await start(['--device', 'cpu']);
    const same = await pixels(here, await here.ended((await here.submit(SMALL)).id));
    expect(agreement(drawn, same)).toBeGreaterThan(40);
  });

  testOnCard('one on which nothing can be computed, which shows in its test, is left for the processor', async () => {
    const fails = { NODE_OPTIONS: `--import ${join(REPOSITORY, 'test/fixtures/children/fails-on-card.mjs')}` };
    const { status } = await start(['--device', 'webgpu'], { ...card, ...fails });
    expect((await status()).device).toMatchObject({
      device: 'cpu',
      reason: expect.stringMatching(/^webgpu does not work; DEVICE_UNAVAILABLE: webgpu:0: .*no kernel image/),
    });
  });

  testOnCard(
    'a worker that hangs on it, takes too much memory, or finds the card full is ended and started on it again',
    async () => {
      const once = { ...NASTY, NASTY_ONCE: join(temporaryFolder(), 'once') };
      const there = await on(once, '--model', OTHER, '--step-limit-seconds', '20', '--memory-hard-gigabytes', '3');
      for (const [prompt, cause] of [
        ['loop', 'hung'],
        ['hog', 'memory-limit'],
        // Pictures were drawn before, and have left something.
        ['fill the device', 'device-memory'],
      ] as const) {
        const job = await ended(there, (await there.submit({ ...SMALL, prompt, numInferenceSteps: 1 })).id);
        expect(job).toMatchObject({ status: 'done', attempts: 2, devices: ['webgpu:0'] });
        expect((await there.status()).children.find(({ name }) => name === 'inference')?.lastExit?.cause).toBe(cause);
      }
    },
  );

  testOnCard(
    'a card that is lost twice is left: the job goes on where it was, on the processor, and it is told',
    async () => {
      const there = await on(NASTY, '--model', OTHER);
      const { id } = await there.submit({ ...SMALL, prompt: 'lose the device', numInferenceSteps: 12 });
      const job = await ended(there, id);
      expect(job).toMatchObject({ status: 'done', attempts: 3, startedOverReason: null, devices: ['webgpu:0', 'cpu'] });
      expect(job.deviceReason).toMatch(/webgpu does not work; webgpu:0: DEVICE_LOST/);
      expect(job.resumedAtStep).toBeGreaterThan(0);
      expect((await there.status()).device).toMatchObject({
        device: 'cpu',
        reason: expect.stringMatching(/webgpu does not work; webgpu:0: DEVICE_LOST/),
      });
      const log = readFileSync(join(there.dataDir, 'logs/supervisor.log'), 'utf8');
      expect(log).toContain('going on with another device');
      expect((await cli(['crashes', '--data-dir', there.dataDir])).stdout).toContain('DEVICE_LOST');
      // Somebody who knows wants it to be tried again.
      expect(await cli(['restart', '--data-dir', there.dataDir])).toMatchObject({ code: 0 });
      await until(async () => ((await there.status()).device.device === 'webgpu:0' ? true : null));
    },
  );
});
