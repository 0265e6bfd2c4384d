import { SEED_MAX, seedAfter } from '@qwen-supervisor/protocol/seed';
import fc from 'fast-check';
import { expect, test } from 'vitest';

test('seeds that follow one another are all different and exact, also over the largest', () => {
  expect([0, 1, 2].map((i) => seedAfter(SEED_MAX - 1, i))).toEqual([SEED_MAX - 1, SEED_MAX, 0]);
  fc.assert(
    fc.property(
      fc.oneof(
        fc.maxSafeNat(),
        fc.integer({ min: 0, max: 20 }).map((back) => SEED_MAX - back),
      ),
      (first) => {
        const seeds = Array.from({ length: 16 }, (_, i) => seedAfter(first, i));
        expect(new Set(seeds).size).toBe(16);
        expect(seeds.every((seed) => Number.isSafeInteger(seed) && seed >= 0)).toBe(true);
      },
    ),
  );
});
