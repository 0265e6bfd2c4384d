/** What clients write, in whatever words, through the routes that read it. */
import { buildApp } from '@qwen-supervisor/api/app';
import { pictureName } from '@qwen-supervisor/api/contract/wording';
import type { JobOrder } from '@qwen-supervisor/protocol/job';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type FakeBackend, fakeBackend } from '../fake-backend.js';

let backend: FakeBackend;
let app: Awaited<ReturnType<typeof buildApp>>;
beforeEach(async () => {
  // Nobody draws, and nobody waits.
  backend = fakeBackend();
  app = await buildApp(backend);
});
afterEach(() => app.close());

/** The request that reaches the queue, or the error. */
async function ordered(url: string, body: object | string): Promise<Record<string, unknown>> {
  const count = backend.asked.length;
  const answer = app.inject({ method: 'POST', url, payload: body, headers: { 'content-type': 'application/json' } });
  const refused = answer.then((response) => (response.statusCode < 300 ? null : response.json()));
  for (;;) {
    const submitted = backend.asked.slice(count).find(({ method }) => method === 'submitJobs');
    if (submitted) {
      const { orders } = submitted.params as { orders: JobOrder[] };
      for (const { id } of backend.jobs) backend.end(id, { status: 'cancelled' });
      await answer;
      return { ...orders[0]?.request, count: orders.length };
    }
    const error = await Promise.race([refused, new Promise((resolve) => setTimeout(resolve, 5))]);
    if (error) return { error: JSON.stringify(error) };
  }
}

const ROUTES = ['/api/v1/jobs', '/v1/images/generations', '/sdapi/v1/txt2img', '/generate/text-to-image'];

describe.each(ROUTES)('%s', (url) => {
  test('numbers may be text', async () => {
    const body = { prompt: 'a fox', width: '64', height: '96', steps: '4', cfg_scale: '7.0', seed: '3' };
    const read = { width: 64, height: 96, numInferenceSteps: 4, trueCfgScale: 7, seed: 3 };
    expect(await ordered(url, body)).toMatchObject(read);
  });

  test.each([
    [{ numInferenceSteps: 4, trueCfgScale: 2, negativePrompt: 'blue' }],
    [{ num_inference_steps: 4, true_cfg_scale: 2, negative_prompt: 'blue' }],
    [{ Steps: 4, CFG_Scale: 2, 'Negative-Prompt': 'blue' }],
    [{ step: 4, guidance_scale: 2, negative_prompt: 'blue' }],
  ])('settings are known by the names of all clients: %o', async (words) => {
    const read = { numInferenceSteps: 4, trueCfgScale: 2, negativePrompt: 'blue' };
    expect(await ordered(url, { prompt: 'a fox', width: 64, height: 64, ...words })).toMatchObject(read);
  });

  test('a size may be one word', async () => {
    expect(await ordered(url, { prompt: 'a fox', size: '64X96' })).toMatchObject({ width: 64, height: 96 });
  });

  test('a setting that is said twice, and differently, is refused', async () => {
    expect((await ordered(url, { prompt: 'a fox', steps: 4, num_inference_steps: 5 })).error).toMatch(/steps/);
  });

  test('a seed of 64 bits is always the same of 53, and a negative one is drawn', async () => {
    const of = async (seed: string) => (await ordered(url, `{"prompt": "a fox", "seed": ${seed}}`)).seed;
    expect(await of('6687881544318117707')).toBe(Number(6687881544318117707n & (2n ** 53n - 1n)));
    expect(await of('"6687881544318117707"')).toBe(await of('6687881544318117707'));
    expect(await of('9007199254740991')).toBe(Number.MAX_SAFE_INTEGER);
    const drawn = [await of('-1'), await of('-1'), await of('"-1"'), await of('-2')];
    expect(new Set(drawn).size).toBe(4);
    expect((await ordered(url, { prompt: 'a fox', seed: 1.5 })).error).toMatch(/seed/);
  });

  test('null is as if nothing had been said', async () => {
    const body = { prompt: 'a fox', seed: null, steps: null, width: null, negative_prompt: null };
    expect((await ordered(url, body)).error).toBeUndefined();
  });
});

describe.each(ROUTES.slice(1))('%s', (url) => {
  test.each([
    ['loras', [{ name: 'detail' }]],
    ['controlnet', { image: 'x' }],
    ['script_name', 'X/Y/Z plot'],
    ['alwayson_scripts', { ADetailer: { args: [true] } }],
    ['enable_hr', true],
    ['enable_hr', 'true'],
    ['restore_faces', true],
    ['tiling', true],
    ['styles', ['cinematic']],
    ['subseed_strength', 0.5],
    ['refiner_checkpoint', 'refiner'],
    ['init_images', ['x']],
    ['image', 'x'],
    ['mask', 'x'],
  ])('what is not there is refused by its name: %s', async (name, value) => {
    expect((await ordered(url, { prompt: 'a fox', [name]: value })).error).toContain(`${name}: `);
  });

  test('what asks for nothing is no matter', async () => {
    const body = {
      prompt: 'a fox',
      enable_hr: false,
      hr_scale: 2,
      styles: ['None'],
      alwayson_scripts: {},
      script_name: '',
      restore_faces: 'false',
      subseed_strength: 0,
      sampler_name: 'DPM++ 2M Karras',
      override_settings: { CLIP_stop_at_last_layers: 2 },
      seed_resize_from_h: 0,
      user: 'me',
    };
    expect((await ordered(url, body)).error).toBeUndefined();
  });
});

test('a native request says a setting that it does not know', async () => {
  expect((await ordered('/api/v1/jobs', { prompt: 'a fox', sampler: 'Euler' })).error).toMatch(/sampler/);
  expect((await ordered('/api/v1/groups', { jobs: [{ prompt: 'a fox', steps: '4' }] })).numInferenceSteps).toBe(4);
});

test('OpenAI: sizes and sides that disagree are refused, others rounded to what can be drawn', async () => {
  const url = '/v1/images/generations';
  expect((await ordered(url, { prompt: 'a fox', size: '64x64', width: 128 })).error).toMatch(/size/);
  expect(await ordered(url, { prompt: 'a fox', size: '500x100' })).toMatchObject({ width: 496, height: 96 });
  expect((await ordered(url, { prompt: 'a fox', size: 'square' })).error).toMatch(/WIDTHxHEIGHT/);
  expect(await ordered(url, { prompt: 'a fox', n: '3' })).toMatchObject({ count: 3 });
});

test.each(ROUTES)('%s: what is meant to be slow, or to break the reader, is refused at once', async (url) => {
  const digits = `${'1'.repeat(200_000)}x`;
  for (const body of [
    { prompt: 'a', steps: digits },
    { prompt: 'a', seed: digits.slice(0, -1) },
    { prompt: 'a', size: digits },
    { prompt: `a${' '.repeat(200_000)}b`, steps: 2 },
    { prompt: `a <lora:x:1>${' ,'.repeat(100_000)}b` },
    { prompt: `${'('.repeat(100_000)}` },
    { prompt: 'a', seed: { valueOf: 1, toString: 1 } },
    { prompt: 'a', width: [], height: {} },
  ])
    expect((await ordered(url, body)).error, JSON.stringify(body).slice(0, 60)).toMatch(/REQUEST_INVALID/);
  for (const body of ['{"prompt": "a", "constructor": 1}', '{"prompt": "a", "__proto__": {"x": 1}, "toString": 1}'])
    expect((await ordered(url, body)).error ?? 'taken').toMatch(/taken|REQUEST_INVALID/);
  const odd = { prompt: 'a', subseed_strength: { valueOf: 1, toString: 1 }, n: { valueOf: 1 } };
  expect((await ordered(url, odd)).error ?? 'taken').toMatch(/taken|REQUEST_INVALID/);
});

test('a picture of a form is known by any of its names, and no file is dropped', () => {
  expect(
    ['image', 'image[]', 'image[0]', 'images', 'images[]', 'Image', 'init_images', 'input_image'].map(pictureName),
  ).toEqual(Array(8).fill('image'));
  expect(['mask', 'mask[]', 'Mask', 'mask_image', 'maskImage'].map(pictureName)).toEqual(Array(5).fill('mask'));
  expect(['control_image', '', 'file'].map(pictureName)).toEqual(['control_image', '', 'file']);
});

test("A1111's tags and weights are taken out of a prompt", async () => {
  const url = '/sdapi/v1/txt2img';
  const prompts = {
    'a fox on teal <lora:add_detail:0.8>': 'a fox on teal',
    'a (red:1.3) fox, <lyco:x:1>, <hypernet:y:1>': 'a red fox',
    'a fox BREAK a box (with a lid)': 'a fox a box (with a lid)',
    'one <three> (x)': 'one <three> (x)',
  };
  for (const [sent, drawn] of Object.entries(prompts))
    expect((await ordered(url, { prompt: sent })).prompt).toBe(drawn);
});
