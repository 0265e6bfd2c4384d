import { readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openCheckpoint } from '@qwen-supervisor/model/checkpoint';
import { describeModel } from '@qwen-supervisor/model/descriptions';
import { describe, expect, test } from 'vitest';
import { copyCheckpoint, OTHER, POCKET } from '../fixture-files.js';

function edit(folder: string, file: string, change: (json: Record<string, unknown>) => void): void {
  const path = join(folder, file);
  const json = JSON.parse(readFileSync(path, 'utf8'));
  change(json);
  writeFileSync(path, JSON.stringify(json));
}

describe('a checkpoint folder', () => {
  test('is described by what we know of it', () => {
    const pocket = describeModel(openCheckpoint(POCKET), 'any');
    expect(pocket).toMatchObject({ id: 'pocket', defaults: { width: 128, height: 128, numInferenceSteps: 20 } });
    const other = describeModel(openCheckpoint(OTHER), 'other');
    expect(other).toMatchObject({ id: 'other', defaults: { width: 1328, numInferenceSteps: 50, negativePrompt: ' ' } });
  });

  test.each<[string, string, (folder: string) => void]>([
    ['a missing config', 'MODEL_NOT_FOUND', (f) => rmSync(join(f, 'vae/config.json'))],
    ['a missing shard', 'MODEL_NOT_FOUND', (f) => rmSync(join(f, 'text_encoder/model-00002-of-00003.safetensors'))],
    ['a config that is not JSON', 'MODEL_INVALID', (f) => writeFileSync(join(f, 'vae/config.json'), '{')],
    [
      'a truncated shard',
      'MODEL_TRUNCATED',
      (f) => truncateSync(join(f, 'vae/diffusion_pytorch_model.safetensors'), 500_000),
    ],
    [
      'another pipeline',
      'MODEL_UNSUPPORTED',
      (f) =>
        edit(f, 'model_index.json', (j) => {
          j._class_name = 'FluxPipeline';
        }),
    ],
    [
      'another transformer',
      'MODEL_UNSUPPORTED',
      (f) =>
        edit(f, 'transformer/config.json', (j) => {
          j._class_name = 'FluxTransformer2DModel';
        }),
    ],
    [
      'a size that others contradict',
      'MODEL_UNSUPPORTED',
      (f) =>
        edit(f, 'transformer/config.json', (j) => {
          j.joint_attention_dim = 161;
        }),
    ],
    [
      'a feature that is not computed',
      'MODEL_UNSUPPORTED',
      (f) =>
        edit(f, 'transformer/config.json', (j) => {
          j.zero_cond_t = true;
        }),
    ],
    [
      'an index that leaves the folder',
      'MODEL_INVALID',
      (f) =>
        edit(f, 'text_encoder/model.safetensors.index.json', (j) => {
          j.weight_map = { a: '../x.safetensors' };
        }),
    ],
    [
      'an index that names a tensor that is not there',
      'MODEL_INVALID',
      (f) =>
        edit(f, 'text_encoder/model.safetensors.index.json', (j) => {
          (j.weight_map as Record<string, string>).ghost = 'model-00001-of-00003.safetensors';
        }),
    ],
  ])('with %s is refused as %s', (_what, code, damage) => {
    const folder = copyCheckpoint(OTHER);
    damage(folder);
    expect(() => openCheckpoint(folder)).toThrow(expect.objectContaining({ code }));
  });

  test('whose config is right but whose tensor has another shape is refused, naming the tensor', () => {
    const { tensors } = openCheckpoint(POCKET);
    expect(() => tensors.transformer.get('img_in.weight', [192, 65])).toThrow(/img_in.weight has the shape \[192,64\]/);
    expect(() => tensors.transformer.get('ghost', [1])).toThrow(/the tensor ghost is missing/);
  });
});
