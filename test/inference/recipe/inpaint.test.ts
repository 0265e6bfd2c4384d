import { keepUnmasked, latentMask, pasteUnmasked } from '@qwen-supervisor/inference/recipe/inpaint';
import { packLatents } from '@qwen-supervisor/inference/recipe/latents';
import { expect, test } from 'vitest';

test('a corner of a token is drawn anew where any pixel of it is white, in the order of packed latents', () => {
  // 32 x 16 pixels: two tokens, four corners of 8 x 8 each.
  const mask = new Uint8Array(32 * 16);
  mask[3 * 32 + 12] = 255;
  mask[15 * 32 + 31] = 128;
  mask[0] = 127;
  expect([...latentMask(mask, 32, 16).anew]).toEqual([0, 1, 0, 0, 0, 0, 0, 1]);
});

test('the rest is what the picture would be at that step: clean latents under its share of the noise', () => {
  const [channels, rows, columns] = [3, 1, 2];
  const planes = Float32Array.from({ length: channels * 4 * columns }, (_, i) => i);
  const clean = packLatents(planes, rows, columns, [0, 0, 0], [1, 1, 1]);
  const noise = clean.map((value) => -value);
  const latents = new Float32Array(clean.length).fill(1000);
  const mask = new Uint8Array(32 * 16);
  // The left half of the left token: its corners 0 and 2.
  for (let y = 0; y < 16; y++) for (let x = 0; x < 8; x++) mask[y * 32 + x] = 255;
  keepUnmasked(latents, { ...latentMask(mask, 32, 16), clean, noise }, 0.25);
  for (let i = 0; i < latents.length; i++) {
    const isAnew = i < 4 * channels && i % 2 === 0;
    expect(latents[i], String(i)).toBeCloseTo(isAnew ? 1000 : 0.5 * (clean[i] as number), 5);
  }
});

test('pixels that are not drawn anew stay to the last bit, and grey ones are mixed', () => {
  const pixels = Uint8Array.from([10, 20, 30, 10, 20, 30, 10, 20, 30]);
  const original = Uint8Array.from([200, 100, 0, 200, 100, 0, 200, 100, 0]);
  pasteUnmasked(pixels, original, Uint8Array.from([0, 255, 128]));
  expect([...pixels]).toEqual([200, 100, 0, 10, 20, 30, 105, 60, 15]);
});
