import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { drawPicture, type Observer } from '@qwen-supervisor/inference/recipe/pipeline';
import { AMPLE, loadSessions } from '@qwen-supervisor/inference/recipe/sessions';
import { openCheckpoint } from '@qwen-supervisor/model/checkpoint';
import type { LoadProgress } from '@qwen-supervisor/protocol/status';
import { InferenceSession, type Tensor } from 'onnxruntime-node';
import { expect, onTestFinished, test, vi } from 'vitest';
import { POCKET, temporaryFolder } from '../../fixture-files.js';

const REQUEST = {
  prompt: 'a fox on a teal background',
  negativePrompt: ' ',
  width: 64,
  height: 48,
  numInferenceSteps: 2,
  trueCfgScale: 4,
  seed: 3,
  initImage: null,
  strength: null,
  mask: null,
};

async function load(blocksPerPart: number) {
  return loadSessions(openCheckpoint(POCKET), {
    cacheFolder: temporaryFolder(),
    threads: 2,
    plan: AMPLE,
    blocksPerPart,
  });
}

const watch = (isCancelled = () => false): Observer => ({
  onStep() {},
  onPart() {},
  onDecoding() {},
  isCancelled,
  isInterrupted: () => false,
});

test('a transformer in parts draws the same bytes as in one', async () => {
  const [whole, cut] = [await load(10), await load(3)];
  const parts = await Promise.all([whole, cut].map((sessions) => sessions.transformer(() => false)));
  expect(parts.map((of) => of?.length)).toEqual([1, 3]);
  const pictures = [await drawPicture(whole, REQUEST, watch()), await drawPicture(cut, REQUEST, watch())];
  expect(pictures[0]?.pixels).toEqual(pictures[1]?.pixels);
  await whole.release();
  await cut.release();
});

test('one stage after the other in memory draws the same bytes as all at once', async () => {
  const options = { cacheFolder: temporaryFolder(), threads: 2 };
  const loads: string[] = [];
  const report = ({ component }: LoadProgress) => loads.at(-1) !== component && loads.push(component);
  const staged = await loadSessions(openCheckpoint(POCKET), {
    ...options,
    plan: { ...AMPLE, residentPixels: 0 },
    report,
  });
  const whole = await load(10);
  expect(loads).toEqual(['tokenizer']);
  const pictures = [await drawPicture(staged, REQUEST, watch()), await drawPicture(whole, REQUEST, watch())];
  expect(pictures[0]?.pixels).toEqual(pictures[1]?.pixels);
  expect(loads).toEqual(['tokenizer', 'text_encoder', 'transformer', 'vae']);
  await drawPicture(staged, REQUEST, watch());
  expect(loads.slice(4), 'the text was kept').toEqual(['transformer', 'vae']);
  await staged.release();
  await whole.release();
});

test('what is in memory gives way to a picture that is too large for all of it, and comes back', async () => {
  const loads: string[] = [];
  const report = ({ component }: LoadProgress) => loads.at(-1) !== component && loads.push(component);
  const plan = { ...AMPLE, residentPixels: 64 * 48 };
  const cacheFolder = temporaryFolder();
  const sessions = await loadSessions(openCheckpoint(POCKET), { cacheFolder, threads: 2, plan, report });
  expect(loads).toEqual(['tokenizer', 'text_encoder', 'transformer', 'vae']);
  const draw = async (request: typeof REQUEST) => {
    loads.length = 0;
    await drawPicture(sessions, request, watch());
    return [...loads];
  };
  const [small, large] = [REQUEST, { ...REQUEST, height: 64 }];
  expect(await draw(small)).toEqual([]);
  expect(await draw(large)).toEqual(['vae']);
  expect(await draw(large)).toEqual(['transformer', 'vae']);
  expect(await draw(small)).toEqual(['transformer']);
  expect(await draw({ ...small, prompt: 'a red cube' })).toEqual(['text_encoder']);
  expect(await draw({ ...small, prompt: 'a blue cube' })).toEqual([]);
  await sessions.release();
});

test('a picture that the faster way has no memory for is drawn the other way, and the next one is not', async () => {
  const loads: string[] = [];
  const report = ({ component }: LoadProgress) => loads.at(-1) !== component && loads.push(component);
  const fastPixels = 64 * 48;
  const plan = { ...AMPLE, residentPixels: fastPixels, fastPixels };
  const cacheFolder = temporaryFolder();
  const sessions = await loadSessions(openCheckpoint(POCKET), { cacheFolder, threads: 2, plan, report });
  const [small, large] = [REQUEST, { ...REQUEST, height: 64 }];
  expect([small, large].map(({ width, height }) => sessions.roundingOf(width * height))).toEqual([
    expect.stringContaining('accuracy 4'),
    expect.stringContaining('accuracy 0'),
  ]);
  const first = await drawPicture(sessions, small, watch());
  loads.length = 0;
  expect(await drawPicture(sessions, large, watch())).not.toBeNull();
  expect(loads, 'the one in memory is of no use').toEqual(['transformer', 'vae']);
  expect((await drawPicture(sessions, small, watch()))?.pixels).toEqual(first?.pixels);
  await sessions.release();
});

test('where no picture has memory for the faster way all parts are loaded for the other one, once', async () => {
  const loads: string[] = [];
  const report = ({ component }: LoadProgress) => loads.at(-1) !== component && loads.push(component);
  const plan = { ...AMPLE, fastPixels: 0 };
  const cacheFolder = temporaryFolder();
  const sessions = await loadSessions(openCheckpoint(POCKET), { cacheFolder, threads: 2, plan, report });
  loads.length = 0;
  expect(await drawPicture(sessions, REQUEST, watch())).not.toBeNull();
  expect(loads).toEqual([]);
  await sessions.release();
});

test.each(['text_encoder', 'transformer', 'vae'] as const)(
  'whoever cancels is heard while the %s is loaded, and the next picture loads it anew',
  async (stage) => {
    let loading = '';
    const sessions = await loadSessions(openCheckpoint(POCKET), {
      cacheFolder: temporaryFolder(),
      threads: 2,
      plan: { ...AMPLE, residentPixels: 0 },
      blocksPerPart: 2,
      report: ({ component }) => {
        loading = component;
      },
    });
    const picture = await drawPicture(sessions, REQUEST, { ...watch(() => loading === stage), onPart() {} });
    expect([picture, loading]).toEqual([null, stage]);
    expect(await drawPicture(sessions, REQUEST, watch())).not.toBeNull();
    await sessions.release();
  },
);

test('a picture in tiles is the same at every time, and near the one that is decoded whole', async () => {
  const large = { ...REQUEST, width: 512, height: 384, numInferenceSteps: 1 };
  const tiled = async () => {
    const plan = { ...AMPLE, tileAbovePixels: 256 * 256 };
    const sessions = await loadSessions(openCheckpoint(POCKET), { cacheFolder: temporaryFolder(), threads: 2, plan });
    const picture = await drawPicture(sessions, large, watch());
    await sessions.release();
    return picture?.pixels as Uint8Array;
  };
  const sessions = await load(10);
  const whole = (await drawPicture(sessions, large, watch()))?.pixels as Uint8Array;
  await sessions.release();
  const first = await tiled();
  // The same where a card that was to decode it whole is found to be full, which is not found out twice.
  type Run = (feeds: Record<string, Tensor>, ...options: unknown[]) => Promise<unknown>;
  const { prototype } = InferenceSession as unknown as { prototype: { run: Run } };
  const { run } = prototype;
  let tried = 0;
  const spy = vi.spyOn(prototype, 'run').mockImplementation(function (this: InferenceSession, feeds, ...options) {
    const [, channels, height = 0, width = 0] = feeds.latents?.dims ?? [];
    if (channels === undefined || height * width <= 32 * 32) return run.call(this, feeds, ...options);
    tried++;
    return Promise.reject(new Error('CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);'));
  });
  onTestFinished(() => spy.mockRestore());
  const full = await load(10);
  for (let n = 0; n < 2; n++) expect((await drawPicture(full, large, watch()))?.pixels).toEqual(first);
  expect(tried).toBe(1);
  await full.release();
  spy.mockRestore();
  expect(await tiled()).toEqual(first);
  const difference = first.reduce((sum, value, i) => sum + Math.abs(value - (whole[i] as number)), 0);
  expect(difference / first.length).toBeLessThan(8);
});

test('whoever cancels is heard between two parts, in the middle of a step', async () => {
  const sessions = await load(2);
  let ran = 0;
  const picture = await drawPicture(sessions, REQUEST, {
    ...watch(() => ran > 1),
    onPart: () => ran++,
    onStep: () => expect.unreachable('a step was completed'),
  });
  expect([picture, ran]).toEqual([null, 2]);
  await sessions.release();
});

test('whoever wants the picture as far as it is gets the last whole step, without waiting for the next', async () => {
  const sessions = await load(2);
  let [ran, steps] = [0, 0];
  const picture = await drawPicture(
    sessions,
    { ...REQUEST, numInferenceSteps: 4 },
    {
      ...watch(),
      onPart: () => ran++,
      onStep: () => steps++,
      isInterrupted: () => ran > 9,
    },
  );
  // Four parts for each of the two prompts.
  expect([picture?.step, steps, ran]).toEqual([1, 1, 10]);
  await sessions.release();
});

test('the modulation of a timestep does not depend on those that are computed with it', async () => {
  const [many, one] = [await load(10), await load(10)];
  await many.modulation.prepare(Float32Array.of(0.9, 0.5, 0.02), () => false);
  await one.modulation.prepare(Float32Array.of(0.5), () => false);
  expect(await many.modulation.of(0.5)).toEqual(await one.modulation.of(0.5));
  await many.release();
  await one.release();
});

test('a timestep that was not prepared, or whose file is gone, is computed when it is asked for', async () => {
  const cacheFolder = temporaryFolder();
  const sessions = await loadSessions(openCheckpoint(POCKET), { cacheFolder, threads: 2, plan: AMPLE });
  await sessions.modulation.prepare(Float32Array.of(0.9, 0.5), () => false);
  const row = await sessions.modulation.of(0.5);
  await sessions.modulation.prepare(Float32Array.of(0.25), () => false);
  rmSync(join(cacheFolder, 'modulation'), { recursive: true });
  expect(await sessions.modulation.of(0.5)).toEqual(row);
  expect(await sessions.modulation.of(0.75, () => true), 'cancelled').toBeNull();
  await sessions.release();
});
