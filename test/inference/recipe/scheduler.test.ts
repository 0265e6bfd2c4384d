import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeSchedule } from '@qwen-supervisor/inference/recipe/scheduler';
import { parseArchitecture } from '@qwen-supervisor/model/architecture';
import { readJson } from '@qwen-supervisor/model/checkpoint';
import { expect, test } from 'vitest';
import { POCKET, REPOSITORY } from '../../fixture-files.js';

interface Case {
  config: Record<string, unknown>;
  steps: number;
  imageTokens: number;
  sigmas: number[];
  timesteps: number[];
}

const cases = JSON.parse(readFileSync(join(REPOSITORY, 'test/fixtures/schedules.json'), 'utf8')) as Case[];

/** The configuration as the reader of checkpoints gives it. */
function schedulerOf(config: Record<string, unknown>) {
  const file = (name: string) => readJson(join(POCKET, name));
  return parseArchitecture({
    modelIndex: file('model_index.json'),
    transformer: file('transformer/config.json'),
    textEncoder: file('text_encoder/config.json'),
    vae: file('vae/config.json'),
    scheduler: config,
  }).scheduler;
}

test.each(cases)('sigmas of $steps steps over $imageTokens tokens equal those of diffusers for $config', (c) => {
  const { sigmas, timesteps } = makeSchedule(schedulerOf(c.config), c.steps, c.imageTokens);
  expect(sigmas).toHaveLength(c.steps + 1);
  c.sigmas.forEach((sigma, i) => {
    expect(sigmas[i]).toBeCloseTo(sigma, 6);
  });
  c.timesteps.forEach((timestep, i) => {
    expect((timesteps[i] as number) / 1000).toBeCloseTo(timestep / 1000, 6);
  });
});

test('a single step goes from pure noise to the picture', () => {
  const config = schedulerOf((cases[0] as Case).config);
  expect([...makeSchedule(config, 1, 64).sigmas]).toEqual([1, 0]);
});

test('schedules that are not computed are refused', () => {
  const config = { ...(cases[0] as Case).config, use_beta_sigmas: true };
  expect(() => schedulerOf(config)).toThrow(expect.objectContaining({ code: 'MODEL_UNSUPPORTED' }));
});
