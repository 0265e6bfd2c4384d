import { join } from 'node:path';
import { gaussianNoise } from '@qwen-supervisor/inference/recipe/noise';
import { addLora, readLora, readMatrices } from '@qwen-supervisor/model/prepare/lora';
import { expect, test } from 'vitest';
import { temporaryFolder, writeFloat32Safetensors } from '../fixture-files.js';

const [ROWS, COLUMNS, RANK] = [6, 32, 4];
const LAYER = 'transformer_blocks.0.attn.to_out.0';
const LAYERS = new Map([[LAYER, [ROWS, COLUMNS]]]);
const down = gaussianNoise(1, RANK * COLUMNS);
const up = gaussianNoise(2, ROWS * RANK);

function loraFile(names: { down: string; up: string; alpha?: string }): string {
  const file = join(temporaryFolder(), 'lora.safetensors');
  const tensors = new Map([
    [names.down, { shape: [RANK, COLUMNS], data: down }],
    [names.up, { shape: [ROWS, RANK], data: up }],
  ]);
  if (names.alpha) tensors.set(names.alpha, { shape: [], data: Float32Array.of(8) });
  writeFloat32Safetensors(file, tensors);
  return file;
}

const kohya = (prefix: string) => ({
  down: `${prefix}.lora_down.weight`,
  up: `${prefix}.lora_up.weight`,
  alpha: `${prefix}.alpha`,
});

test.each([
  ['diffusers', { down: `transformer.${LAYER}.lora_A.weight`, up: `transformer.${LAYER}.lora_B.weight` }, 1],
  ['Lightning', kohya(LAYER), 2],
  ['kohya', kohya(`lora_unet_${LAYER.replaceAll('.', '_')}`), 2],
])('by the names of %s: W + s * B * A', (_name, names, scale) => {
  const lora = readLora(loraFile(names), LAYERS).get(LAYER);
  if (!lora) throw new Error('not found');
  const before = gaussianNoise(3, ROWS * COLUMNS);
  const weights = before.slice(2 * COLUMNS);
  addLora(weights, 2, COLUMNS, readMatrices(lora));
  weights.forEach((value, i) => {
    const [row, column] = [2 + Math.floor(i / COLUMNS), i % COLUMNS];
    let sum = before[row * COLUMNS + column] as number;
    for (let r = 0; r < RANK; r++)
      sum += scale * (up[row * RANK + r] as number) * (down[r * COLUMNS + column] as number);
    expect(Math.abs(value - sum)).toBeLessThan(1e-6);
  });
});

test('one for another model, or of another shape, is refused by its tensor', () => {
  expect(() => readLora(loraFile(kohya('single_blocks.0.linear')), LAYERS)).toThrow(/single_blocks.0.linear/);
  const shapes = new Map([[LAYER, [ROWS, COLUMNS * 2]]]);
  expect(() => readLora(loraFile(kohya(LAYER)), shapes)).toThrow(/does not give \[6,64\]/);
});
