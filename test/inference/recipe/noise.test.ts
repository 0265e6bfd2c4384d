import { gaussianNoise, philox } from '@qwen-supervisor/inference/recipe/noise';
import { expect, test } from 'vitest';

test('Philox gives the known answers of its authors', () => {
  const out = new Uint32Array(4);
  philox(out, 0, 0, 0);
  expect([...out].map((word) => word.toString(16))).toEqual(['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']);
});

test('noise is standard normal', () => {
  const noise = gaussianNoise(42, 100_000);
  const mean = noise.reduce((sum, x) => sum + x, 0) / noise.length;
  const variance = noise.reduce((sum, x) => sum + x * x, 0) / noise.length;
  expect(mean).toBeCloseTo(0, 1);
  expect(variance).toBeCloseTo(1, 1);
});

test('all 53 bits of a seed matter, and a shorter noise is the beginning of a longer one', () => {
  const [a, b, c] = [1, 2 ** 32 + 1, 2 ** 52 + 1].map((seed) => gaussianNoise(seed, 8));
  expect(a).not.toEqual(b);
  expect(a).not.toEqual(c);
  expect(b).not.toEqual(c);
  expect(gaussianNoise(1, 3)).toEqual(a?.slice(0, 3));
});
