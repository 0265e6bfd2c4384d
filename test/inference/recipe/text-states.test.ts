import { FloatCache } from '@qwen-supervisor/inference/recipe/float-cache';
import { TextStates } from '@qwen-supervisor/inference/recipe/text-states';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../../fixture-files.js';

/** Keeps nothing on disk. */
const nowhere = () => new FloatCache(temporaryFolder(), 0);

test('a prompt is encoded once while it is in use, and the oldest of many is forgotten', async () => {
  const known = new TextStates(nowhere(), 'encoder');
  let encoded = 0;
  const ask = (prompt: string) => known.of(prompt, async () => Float32Array.of(++encoded));
  const first = await ask(' ');
  for (let i = 0; i < 7; i++) await ask(String(i));
  expect([await ask(' '), encoded]).toEqual([first, 8]);
  await ask('one more');
  await ask('0');
  expect(encoded, 'the oldest had gone').toBe(10);
  expect(await ask(' ')).toBe(first);
});

test('a prompt that could not be encoded is tried again', async () => {
  const known = new TextStates(nowhere(), 'encoder');
  await expect(known.of('a', () => Promise.reject(new Error('no')))).rejects.toThrow('no');
  expect(await known.of('a', async () => Float32Array.of(1))).toEqual(Float32Array.of(1));
});

test('after a restart it is known still, to the same encoder alone', async () => {
  const folder = temporaryFolder();
  const started = (encoder: string) => new TextStates(new FloatCache(folder, 1e6), encoder);
  await started('one').of('a', async () => Float32Array.of(1, 2));
  expect(await started('one').of('a', () => Promise.reject(new Error('no')))).toEqual(Float32Array.of(1, 2));
  await expect(started('another').of('a', () => Promise.reject(new Error('no')))).rejects.toThrow('no');
});
