import { SEED_MAX } from './job-request.js';

/** A seed for a request that has none: 53 random bits. */
export function drawSeed(): number {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2)) as unknown as [number, number];
  const seed = (high & 0x1f_ffff) * 2 ** 32 + low;
  return Math.min(seed, SEED_MAX);
}
