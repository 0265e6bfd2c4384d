/** Seeds are exact JavaScript integers, so that every JSON client can send them back unchanged. */
export const SEED_MAX = Number.MAX_SAFE_INTEGER;

/** Of several pictures that differ in their seeds alone the one after `count` others: after the largest comes 0. */
export function seedAfter(first: number, count: number): number {
  const left = SEED_MAX - first;
  return count <= left ? first + count : count - left - 1;
}

/** A seed for a request that has none: 53 random bits. */
export function drawSeed(): number {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2)) as unknown as [number, number];
  const seed = (high & 0x1f_ffff) * 2 ** 32 + low;
  return Math.min(seed, SEED_MAX);
}

/**
 * A seed from its digits. Other programs have seeds of 64 bits: of those the low 53 bits are taken, so that the same
 * seed is always the same picture, and the answer tells what to send to get it again. Negative ones stay so.
 */
export function seedOf(digits: string): number {
  const seed = BigInt(digits.trim().replace(/^\+/, ''));
  return Number(seed < 0n ? -1n : BigInt.asUintN(53, seed));
}
