import {
  adaptToModel,
  completeRequest,
  type JobRequest,
  parseNativeRequest,
  requestOf,
  requireAllowed,
  shrinkTo,
  sizeLike,
  skippedSteps,
  stepsOf,
  withinPixels,
  workOf,
} from '@qwen-supervisor/protocol/job-request';
import { infotext } from '@qwen-supervisor/protocol/picture-text';
import { expect, test } from 'vitest';

const DEFAULTS = { width: 1328, height: 1328, numInferenceSteps: 50, trueCfgScale: 4, negativePrompt: ' ' };
const MODEL = { defaults: DEFAULTS, distilled: null };
const LIMITS = { maxSteps: 100, maxPixels: 4_194_304, memoryPixels: 2048 * 1536 };
const complete = (body: object) => completeRequest(parseNativeRequest(body), MODEL, LIMITS, () => 7);

/** As diffusers does it in `get_timesteps`, for every combination of steps and strength that its floats distinguish. */
test.each([
  [20, 0.6, 8],
  [20, 0.7, 6],
  [50, 0.75, 12],
  [50, 1, 0],
  [10, 0.01, 9],
  [1, 0.5, 0],
  [3, 0.34, 1],
  [30, 0.9, 3],
])('of %i steps with strength %f the first %i are left out', (numInferenceSteps, strength, skipped) => {
  const request = { ...complete({ prompt: 'a', numInferenceSteps }), strength } as JobRequest;
  expect([skippedSteps(request), stepsOf(request)]).toEqual([skipped, numInferenceSteps - skipped]);
});

test('strength is three quarters unless given, and nothing without a picture to draw over', () => {
  expect(complete({ prompt: 'a', initImage: 'x' })).toMatchObject({ strength: 0.75 });
  expect(complete({ prompt: 'a' })).toMatchObject({ strength: null, initImage: null, seed: 7 });
  expect(() => complete({ prompt: 'a', strength: 0.5 })).toThrow(/^strength: /);
});

test.each([
  [
    { width: 128, height: 128 },
    { width: 128, height: 128 },
  ],
  [
    { width: 1000, height: 500 },
    { width: 1008, height: 496 },
  ],
  [
    { width: 4000, height: 3000 },
    { width: 1536, height: 1152 },
  ],
  [
    { width: 1, height: 10_000 },
    { width: 16, height: 4096 },
  ],
])('a picture of %o is drawn over in %o: its shape, no more pixels than the model likes', (image, size) => {
  expect(sizeLike(image, DEFAULTS)).toEqual(size);
});

test('work grows with pixels, steps and guidance', () => {
  const work = (body: object) => workOf(complete({ prompt: 'a', width: 128, height: 128, ...body }));
  expect(work({ numInferenceSteps: 20 })).toBe(64 * 2 * 20);
  expect(work({ numInferenceSteps: 20, trueCfgScale: 1 })).toBe(64 * 20);
  expect(work({ numInferenceSteps: 20, initImage: 'x', strength: 0.5 })).toBe(64 * 2 * 10);
});

test('a request of an earlier version, which knew no pictures to draw over, is complete', () => {
  const { initImage, strength, ...old } = complete({ prompt: 'a' });
  expect(requestOf(old as JobRequest)).toEqual({ ...old, initImage, strength });
});

test('the text in a picture reads as that of A1111', () => {
  const request = complete({ prompt: 'a fox\nin a box', negativePrompt: 'blue', initImage: 'x', strength: 0.6 });
  expect(infotext(request, 'pocket')).toBe(
    'a fox\nin a box\nNegative prompt: blue\nSteps: 50, Sampler: Euler, CFG scale: 4, Seed: 7, Size: 1328x1328, Model: pocket, Denoising strength: 0.6',
  );
});

test('a picture for which there is no memory is refused, with the largest of its shape', () => {
  const refused = () => complete({ prompt: 'a', width: 2048, height: 2048 });
  expect(refused).toThrow(/no memory for 2048x2048; the largest picture of this shape here is 1760x1760/);
  expect(complete({ prompt: 'a', width: 1760, height: 1760 })).toMatchObject({ width: 1760 });
});

test('what a distilled model cannot do is refused, or left out for clients that send it always', () => {
  const model = { defaults: { ...DEFAULTS, numInferenceSteps: 4, trueCfgScale: 1 }, distilled: { steps: [4, 8] } };
  const distilled = (body: object) => completeRequest(parseNativeRequest(body), model, LIMITS, () => 7);
  expect(distilled({ prompt: 'a' })).toMatchObject({ numInferenceSteps: 4, trueCfgScale: 1 });
  expect(distilled({ prompt: 'a', numInferenceSteps: 8 })).toMatchObject({ numInferenceSteps: 8 });
  expect(() => distilled({ prompt: 'a', numInferenceSteps: 20 })).toThrow(/distilled, and draws in 4 or 8 steps/);
  expect(() => distilled({ prompt: 'a', trueCfgScale: 4 })).toThrow(/distilled, and draws without guidance/);
  const { adapted, changes } = adaptToModel({ numInferenceSteps: 20, trueCfgScale: 7 }, model);
  expect(distilled({ prompt: 'a', ...JSON.parse(JSON.stringify(adapted)) })).toMatchObject({ numInferenceSteps: 4 });
  expect(changes).toEqual([
    '20 steps were not made: this model is distilled for 4 or 8',
    'guidance of 7 was left out: this model is distilled, and draws without',
  ]);
  expect(adaptToModel({ numInferenceSteps: 8, trueCfgScale: 1 }, model).changes).toEqual([]);
});

test.each([
  [1328, 1328, 512 * 512, 512, 512],
  [1664, 928, 512 * 512, 672, 368],
  [4096, 16, 16_384, 1024, 16],
  [16, 4096, 16_384, 16, 1024],
  [4096, 48, 16_384, 1024, 16],
  [512, 512, 100, 16, 16],
])('%i by %i with at most %i pixels is %i by %i', (width, height, pixels, across, down) => {
  expect(shrinkTo({ width, height }, pixels)).toEqual({ width: across, height: down });
});

test('a size that is shrunk has never more pixels than were asked for', () => {
  for (let width = 16; width <= 4096; width += 144)
    for (let height = 16; height <= 4096; height += 208)
      for (const pixels of [256, 16_384, 500_000, 1328 * 1328]) {
        const size = shrinkTo({ width, height }, pixels);
        expect(size.width * size.height, `${width}x${height} at ${pixels}`).toBeLessThanOrEqual(pixels);
      }
});

test('a model is offered with sizes that are allowed', () => {
  const offered = withinPixels({ ...MODEL, sizes: { '1:1': [1328, 1328], '16:9': [512, 288] } }, 512 * 512);
  expect(offered).toEqual({
    distilled: null,
    defaults: { ...DEFAULTS, width: 512, height: 512 },
    sizes: { '1:1': [512, 512], '16:9': [512, 288] },
  });
});

test.each([
  [{ ...LIMITS, maxSteps: 40 }, null, /^numInferenceSteps: 50 .*\(40\)$/],
  [{ ...LIMITS, maxPixels: 1e6 }, null, /^width, height: 1328x1328 .*\(1000000 pixels\)$/],
  [{ ...LIMITS, memoryPixels: 512 * 512 }, null, /no memory for 1328x1328; .* 512x512$/],
  [LIMITS, { steps: [4, 8] }, /distilled, and draws in 4 or 8 steps/],
])('a request of another time is looked at by the limits that hold now', (limits, distilled, reason) => {
  const request = complete({ prompt: 'a' });
  expect(() => requireAllowed(request, MODEL, LIMITS)).not.toThrow();
  expect(() => requireAllowed(request, { distilled }, limits)).toThrow(reason);
});
