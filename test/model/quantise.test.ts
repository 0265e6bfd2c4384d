import { gaussianNoise } from '@qwen-supervisor/inference/recipe/noise';
import { precisionOf } from '@qwen-supervisor/model/prepare/precision';
import { dequantiseRows, type Quality, quantiseRows, rowSizes } from '@qwen-supervisor/model/prepare/quantise';
import { describe, expect, test } from 'vitest';

function quantise(weights: Float32Array, rows: number, columns: number, bits: 4 | 8, quality: Quality = 'standard') {
  const sizes = rowSizes(columns, bits);
  const codes = new Uint8Array(rows * sizes.codes);
  const scales = new Float32Array(rows * sizes.scales);
  quantiseRows(weights, rows, columns, bits, quality, codes, scales);
  return { codes, scales, values: dequantiseRows(codes, scales, rows, columns, bits) };
}

function relativeError(actual: Float32Array, expected: Float32Array): number {
  const square = (values: Float32Array) => values.reduce((sum, value) => sum + value * value, 0);
  return Math.sqrt(square(actual.map((value, i) => value - (expected[i] as number))) / square(expected));
}

describe('Gaussian weights in blocks of 32', () => {
  const [rows, columns] = [64, 1024];
  const weights = gaussianNoise(1, rows * columns);
  test.each([
    [4, 'standard', 0.086],
    [4, 'best', 0.082],
    [8, 'standard', 0.0055],
    [8, 'best', 0.0055],
  ] as const)('%s bits, %s: a relative error of at most %s', (bits, quality, limit) => {
    const error = relativeError(quantise(weights, rows, columns, bits, quality).values, weights);
    expect(error).toBeLessThan(limit);
    expect(error).toBeGreaterThan(0);
  });
});

test('the value of the largest size is met, whichever its sign, and zeros stay zeros', () => {
  const weights = new Float32Array(64);
  weights[3] = -0.7;
  weights[40] = 0.7;
  const { values } = quantise(weights, 1, 64, 4);
  expect(values[3]).toBeCloseTo(-0.7, 6);
  expect(values[40]).toBeCloseTo(0.7, 6);
  expect(values.filter((value) => value !== 0)).toHaveLength(2);
});

test('of four bits the even element of a pair is the low half', () => {
  const weights = Float32Array.from({ length: 32 }, (_, i) => (i === 0 ? -8 : i === 1 ? 7 : 0));
  const { codes, scales } = quantise(weights, 1, 32, 4);
  expect(scales[0]).toBeCloseTo(1, 6);
  expect([...codes.subarray(0, 2)]).toEqual([0xf0, 0x88]);
});

test('a row that does not fill its last block is filled with zeros', () => {
  const { codes, values } = quantise(gaussianNoise(2, 2 * 40), 2, 40, 8);
  expect(codes).toHaveLength(2 * 64);
  expect([...codes.subarray(40, 64)]).toEqual(new Array(24).fill(128));
  expect(values).toHaveLength(80);
});

test('sensitive layers are kept more exactly than the others', () => {
  const of = (name: string, chosen: 'int4' | 'int8' | 'none' = 'int4') => precisionOf('transformer', name, chosen, 60);
  expect(of('transformer_blocks.7.attn.to_q.weight')).toBe('int4');
  expect(of('transformer_blocks.0.attn.to_q.weight')).toBe('int8');
  expect(of('transformer_blocks.59.txt_mlp.net.2.weight')).toBe('int8');
  expect(of('transformer_blocks.7.img_mlp.net.2.weight')).toBe('int8');
  expect(of('transformer_blocks.7.attn.norm_q.weight')).toBe('float32');
  expect(of('transformer_blocks.7.attn.to_q.bias')).toBe('float32');
  expect(of('proj_out.weight')).toBe('float32');
  expect(of('transformer_blocks.7.attn.to_q.weight', 'int8')).toBe('int8');
  expect(of('transformer_blocks.7.attn.to_q.weight', 'none')).toBe('float32');
  expect(precisionOf('text_encoder', 'layers.3.mlp.up_proj.weight', 'int4', 28)).toBe('int8');
  expect(precisionOf('text_encoder', 'layers.3.input_layernorm.weight', 'int4', 28)).toBe('float32');
});
