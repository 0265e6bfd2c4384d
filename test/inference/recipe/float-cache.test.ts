import { mkdirSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { FloatCache } from '@qwen-supervisor/inference/recipe/float-cache';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../../fixture-files.js';

const VALUES = Float32Array.of(1, -0.5, Number.MIN_VALUE);

test('what was kept is there for another process, bit by bit', () => {
  const folder = temporaryFolder();
  expect(new FloatCache(folder, 1e6).put('a', VALUES)).toBe(true);
  const other = new FloatCache(folder, 1e6);
  expect([other.get('a'), other.get('b')]).toEqual([VALUES, null]);
});

test.each([
  ['cut off', (bytes: Buffer) => bytes.subarray(0, 20)],
  ['empty', () => Buffer.alloc(0)],
  ['changed', (bytes: Buffer) => Buffer.from(bytes.map((byte, i) => (i === 2 ? byte ^ 1 : byte)))],
])('a file that was %s counts as none, and goes', (_, damage) => {
  const folder = temporaryFolder();
  const cache = new FloatCache(folder, 1e6);
  cache.put('a', VALUES);
  const [name = ''] = readdirSync(folder);
  writeFileSync(join(folder, name), damage(readFileSync(join(folder, name))));
  expect(cache.get('a')).toBeNull();
  expect(readdirSync(folder)).toEqual([]);
});

test('of too many the one that was wanted longest ago goes', () => {
  const folder = temporaryFolder();
  const cache = new FloatCache(folder, 3 * 44);
  for (const key of ['a', 'b', 'c']) cache.put(key, VALUES);
  for (const name of readdirSync(folder)) utimesSync(join(folder, name), 1, 1);
  cache.get('a');
  cache.put('d', VALUES);
  cache.put('e', VALUES);
  expect(['a', 'd', 'e'].map((key) => cache.get(key) !== null)).toEqual([true, true, true]);
  expect(readdirSync(folder)).toHaveLength(3);
});

test('a folder that is emptied, or has something else in it, disturbs nobody', () => {
  const folder = temporaryFolder();
  const cache = new FloatCache(join(folder, 'cache'), 50);
  cache.put('a', VALUES);
  mkdirSync(join(folder, 'cache/other'));
  expect(cache.put('b', VALUES)).toBe(true);
  rmSync(join(folder, 'cache'), { recursive: true });
  expect([cache.get('b'), cache.put('c', VALUES)]).toEqual([null, true]);
});

test('where nothing can be written nothing is kept, and nobody is disturbed', () => {
  const folder = temporaryFolder();
  writeFileSync(join(folder, 'file'), '');
  const cache = new FloatCache(join(folder, 'file'), 1e6);
  expect([cache.put('a', VALUES), cache.get('a')]).toEqual([false, null]);
});
