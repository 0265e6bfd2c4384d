/** What the form asks for, and what it takes from pictures and jobs. */

import type { Job } from '@qwen-supervisor/protocol/job';
import { jobRequestSchema } from '@qwen-supervisor/protocol/job-request';
import { pictureTexts } from '@qwen-supervisor/protocol/picture-text';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  emptyForm,
  type Form,
  fromJob,
  fromTexts,
  presetOf,
  toRequests,
  whyNot,
} from '../../packages/web/src/screens/create/form';
import { job, MODEL } from './samples';

const side = fc.integer({ min: 1, max: 64 }).map((times) => times * 16);
const form: fc.Arbitrary<Form> = fc.record({
  prompt: fc.string({ minLength: 1, maxLength: 200, unit: 'grapheme' }).filter((text) => text.trim() !== ''),
  negativePrompt: fc.option(fc.string({ maxLength: 50 })),
  size: fc.option(fc.record({ width: side, height: side })),
  steps: fc.option(fc.integer({ min: 1, max: 1000 })),
  scale: fc.option(fc.double({ min: 0, max: 100, noNaN: true })),
  seed: fc.maxSafeNat(),
  isSeedLocked: fc.boolean(),
  count: fc.integer({ min: 1, max: 16 }),
  source: fc.option(fc.constant({ value: 'data:image/png;base64,AAAA', shown: '' })),
  strength: fc.double({ min: 0.05, max: 1, noNaN: true }),
});

test('whatever the form holds that can be sent, the server understands', () => {
  fc.assert(
    fc.property(form, (filled) => {
      fc.pre(whyNot(filled, MODEL) === null);
      const requests = toRequests(filled, MODEL);
      expect(requests).toHaveLength(filled.count);
      for (const request of requests) jobRequestSchema.parse(request);
      expect(new Set(requests.map(({ seed }) => seed)).size).toBe(filled.count);
      expect(requests[0]?.seed, 'the seed that is shown is the one that is drawn with').toBe(filled.seed);
    }),
  );
});

test('the settings of a job, used again with its seed, ask for the same picture', () => {
  fc.assert(
    fc.property(form, (filled) => {
      fc.pre(whyNot(filled, MODEL) === null && filled.source === null);
      const [asked] = toRequests({ ...filled, count: 1 }, MODEL);
      const drawn = { ...job('a'), ...asked, negativePrompt: asked?.negativePrompt ?? ' ' } as Job;
      const [again] = toRequests(fromJob(drawn, emptyForm(1), true, '/'), MODEL);
      const { negativePrompt, ...same } = again ?? {};
      expect({ ...same, negativePrompt: negativePrompt ?? ' ' }).toEqual({
        ...asked,
        negativePrompt: asked?.negativePrompt?.trim() ? asked.negativePrompt : ' ',
      });
    }),
  );
});

test('without the seed everything comes back but the seed', () => {
  const used = fromJob(job('a', { prompt: 'an owl', seed: 99, width: 176, height: 96 }), emptyForm(5), false, '/');
  expect(used).toMatchObject({ prompt: 'an owl', seed: 5, isSeedLocked: false, size: { width: 176, height: 96 } });
});

test('a job that drew over a picture brings that picture and its strength back', () => {
  const used = fromJob(job('a', { initImage: 'ab12', strength: 0.4 }), emptyForm(5), true, '/qwen/');
  expect(used).toMatchObject({ source: { value: 'ab12', shown: '/qwen/api/v1/inputs/ab12' }, strength: 0.4 });
});

test('a PNG of ours restores what it was made with', () => {
  const request = {
    ...job('a', { prompt: 'a fox,\nwith: a colon', seed: 2 ** 50, numInferenceSteps: 33, trueCfgScale: 2.5 }),
  };
  const texts = pictureTexts(request, 'pocket');
  const wanted = {
    prompt: request.prompt,
    seed: 2 ** 50,
    isSeedLocked: true,
    steps: 33,
    scale: 2.5,
    size: { width: 128, height: 128 },
  };
  expect(fromTexts(texts, emptyForm(1))).toMatchObject(wanted);
  const { parameters = '' } = texts;
  expect(fromTexts({ parameters }, emptyForm(1)), 'also by the text that A1111 reads').toMatchObject(wanted);
});

test('so does a PNG of A1111, and what makes no sense here is left as it was', () => {
  const parameters = [
    'masterpiece, a castle <lora:x:1>',
    'on a hill',
    'Negative prompt: blurry,',
    'ugly',
    'Steps: 25, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 1234, Size: 500x333, Model: sdxl, Version: v1.9',
  ].join('\n');
  expect(fromTexts({ parameters }, emptyForm(1))).toMatchObject({
    prompt: 'masterpiece, a castle <lora:x:1>\non a hill',
    negativePrompt: 'blurry,\nugly',
    steps: 25,
    scale: 7,
    seed: 1234,
    size: null,
  });
});

test('texts that tell nothing of how a picture was made, or are broken, restore nothing', () => {
  for (const texts of [{}, { parameters: '' }, { parameters: 'made by hand' }, { 'qwen-supervisor': '{"request":' }])
    expect(fromTexts(texts, emptyForm(1))).toBeNull();
  expect(fromTexts({ 'qwen-supervisor': 'null' }, emptyForm(1))).toBeNull();
  fc.assert(
    fc.property(fc.string(), (text) => void fromTexts({ parameters: text, 'qwen-supervisor': text }, emptyForm(1))),
  );
});

test('a preset is recognised by its numbers, and any other are none', () => {
  expect(presetOf(emptyForm(1), MODEL)).toBe('balanced');
  expect(presetOf({ ...emptyForm(1), steps: 40 }, MODEL)).toBe('high');
  expect(presetOf({ ...emptyForm(1), steps: 41 }, MODEL)).toBeNull();
});

test.each([
  ['an empty prompt', { prompt: '  ' }, /Describe/],
  ['a side that is no multiple', { size: { width: 100, height: 128 } }, /multiples of 16/],
  ['a side of nothing', { size: { width: 0, height: 128 } }, /multiples of 16/],
  ['more pixels than there is room for', { size: { width: 4096, height: 4096 } }, /4\.2 megapixels/],
  ['too many steps', { steps: 2000 }, /1 to 1000/],
  ['no steps', { steps: 0 }, /1 to 1000/],
  ['half a seed', { seed: 0.5 }, /whole number/],
])('%s cannot be sent, and is said why', (_what, changes, why) => {
  expect(whyNot({ ...emptyForm(1), prompt: 'a fox', ...changes }, MODEL)).toMatch(why);
});

test('a distilled model is asked for its steps, without guidance', () => {
  const distilled = {
    ...MODEL,
    distilled: { steps: [4, 8] },
    defaults: { ...MODEL.defaults, numInferenceSteps: 8, trueCfgScale: 1 },
  };
  const filled = { ...emptyForm(1), prompt: 'a fox', scale: 7 };
  expect(toRequests(filled, distilled)[0]).toMatchObject({ numInferenceSteps: 8, trueCfgScale: 1 });
  expect(whyNot({ ...filled, steps: 20 }, distilled)).toMatch(/4 or 8/);
});
