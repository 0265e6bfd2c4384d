/**
 * Seeded Gaussian noise: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) and
 * Box-Muller. Counter-based, so that a value depends on seed and position alone. Not the noise of PyTorch: its
 * generators differ between devices and cannot be met by anyone.
 */

/** `count` standard normal values for a seed of up to 53 bits. */
export function gaussianNoise(seed: number, count: number): Float32Array {
  const key0 = seed >>> 0;
  const key1 = Math.floor(seed / 2 ** 32) >>> 0;
  const out = new Float32Array(count);
  const random = new Uint32Array(4);
  for (let block = 0; block * 4 < count; block++) {
    philox(random, block, key0, key1);
    for (let pair = 0; pair < 2; pair++) {
      const at = block * 4 + pair * 2;
      // (0, 1]: the logarithm of zero is never asked for.
      const radius = Math.sqrt(-2 * Math.log(((random[pair * 2] as number) + 1) / 2 ** 32));
      const angle = (2 * Math.PI * (random[pair * 2 + 1] as number)) / 2 ** 32;
      if (at < count) out[at] = radius * Math.cos(angle);
      if (at + 1 < count) out[at + 1] = radius * Math.sin(angle);
    }
  }
  return out;
}

/** Ten rounds on the counter (`block`, 0, 0, 0), written to `out`. */
export function philox(out: Uint32Array, block: number, key0: number, key1: number): void {
  let [c0, c1, c2, c3] = [block >>> 0, 0, 0, 0];
  let [k0, k1] = [key0, key1];
  for (let round = 0; round < 10; round++) {
    const [high0, low0] = multiply(0xd2511f53, c0);
    const [high1, low1] = multiply(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** 32 x 32 → 64 bits as [high, low]. */
function multiply(a: number, b: number): [number, number] {
  const low = Math.imul(a, b) >>> 0;
  // The exact high half by 16-bit parts: a double holds 53 bits only.
  const [a1, a0, b1, b0] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff];
  const middle = a1 * b0 + ((a0 * b0) >>> 16);
  const middle2 = (middle & 0xffff) + a0 * b1;
  const high = (a1 * b1 + Math.floor(middle / 65536) + Math.floor(middle2 / 65536)) >>> 0;
  return [high, low];
}
