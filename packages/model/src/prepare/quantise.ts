/**
 * Weights in blocks of 32 along the columns, symmetric, as ONNX Runtime's `MatMulNBits` reads them: a code is an
 * unsigned number, its value (code - zero) * scale of the block, zero being 8 or 128. Reference: ONNX Runtime,
 * docs/ContribOperators.md, `com.microsoft.MatMulNBits`; of 4 bits the even element of a pair has the low half.
 */

/** Elements of a block. */
export const BLOCK = 32;
/** What the names of a quantised weight's two tensors end with. */
export const CODES = '.codes';
export const SCALES = '.scales';

/** `best` tries eight more scales for each block and keeps the one of the least error: 3 % less, ten times the time. */
export type Quality = 'standard' | 'best';

/** Scales that are tried, as shares of the one that maps the largest value to the largest code. */
const CANDIDATES = [1.06, 1.03, 0.97, 0.94, 0.91, 0.88, 0.84, 0.8];

/** Bytes of the codes of a row, and scales of a row. */
export function rowSizes(columns: number, bits: 4 | 8): { codes: number; scales: number } {
  const blocks = Math.ceil(columns / BLOCK);
  return { codes: blocks * ((BLOCK * bits) / 8), scales: blocks };
}

/**
 * Quantises `rows` rows of `columns` weights. Blocks that end beyond the row are filled with zeros.
 * @param codes rows * rowSizes.codes bytes, written; @param scales rows * rowSizes.scales, written
 */
export function quantiseRows(
  weights: Float32Array,
  rows: number,
  columns: number,
  bits: 4 | 8,
  quality: Quality,
  codes: Uint8Array,
  scales: Float32Array,
): void {
  const blocks = Math.ceil(columns / BLOCK);
  const blockBytes = (BLOCK * bits) / 8;
  const quantise = quality === 'best' ? bestScale : refittedScale;
  const last = new Float32Array(BLOCK);
  const numbers = new Uint8Array(BLOCK);
  for (let row = 0; row < rows; row++) {
    for (let b = 0; b < blocks; b++) {
      let [from, start] = [weights, row * columns + b * BLOCK];
      const length = columns - b * BLOCK;
      if (length < BLOCK) {
        last.set(weights.subarray(start, start + length));
        last.fill(0, length);
        [from, start] = [last, 0];
      }
      const at = row * blocks + b;
      scales[at] = quantise(from, start, bits, numbers);
      const to = at * blockBytes;
      if (bits === 8) {
        for (let i = 0; i < BLOCK; i++) codes[to + i] = numbers[i] as number;
      } else {
        for (let i = 0; i < BLOCK; i += 2)
          codes[to + (i >> 1)] = (numbers[i] as number) | ((numbers[i + 1] as number) << 4);
      }
    }
  }
}

/** The values that codes and scales stand for, [rows, columns]. */
export function dequantiseRows(
  codes: Uint8Array,
  scales: Float32Array,
  rows: number,
  columns: number,
  bits: 4 | 8,
): Float32Array {
  const blocks = Math.ceil(columns / BLOCK);
  const out = new Float32Array(rows * columns);
  const zero = 1 << (bits - 1);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const index = row * blocks * BLOCK + column;
      const byte = codes[bits === 8 ? index : index >> 1] as number;
      const code = bits === 8 ? byte : index % 2 === 0 ? byte & 15 : byte >> 4;
      out[row * columns + column] = (code - zero) * (scales[row * blocks + Math.floor(column / BLOCK)] as number);
    }
  }
  return out;
}

/** The largest value, with its sign, becomes the lowest code: that side has one code more. */
function firstScale(weights: Float32Array, start: number, bits: 4 | 8): number {
  let [least, most] = [0, 0];
  for (let i = start; i < start + BLOCK; i++) {
    const value = weights[i] as number;
    if (value < least) least = value;
    if (value > most) most = value;
  }
  return (most > -least ? most : least) / -(1 << (bits - 1));
}

/** Writes the codes for a scale; gives the scale that fits these codes best, by least squares. */
function encode(weights: Float32Array, start: number, scale: number, bits: 4 | 8, numbers: Uint8Array): number {
  const zero = 1 << (bits - 1);
  const highest = 2 * zero - 1;
  const inverse = 1 / scale;
  const offset = zero + 0.5;
  let [product, square] = [0, 0];
  for (let i = 0; i < BLOCK; i++) {
    const value = weights[start + i] as number;
    // Never below zero, where cutting off would not round; a smaller scale may go beyond the ends.
    const code = Math.min(highest, Math.max(0, value * inverse + offset) | 0);
    numbers[i] = code;
    const q = code - zero;
    product += q * value;
    square += q * q;
  }
  return square === 0 ? scale : Math.fround(product / square);
}

function refittedScale(weights: Float32Array, start: number, bits: 4 | 8, numbers: Uint8Array): number {
  const scale = firstScale(weights, start, bits);
  // A scale whose inverse is infinite has nothing to tell apart.
  if (Math.abs(scale) < 1e-37) {
    numbers.fill(1 << (bits - 1));
    return 0;
  }
  return encode(weights, start, scale, bits, numbers);
}

function bestScale(weights: Float32Array, start: number, bits: 4 | 8, numbers: Uint8Array): number {
  const first = firstScale(weights, start, bits);
  let best = refittedScale(weights, start, bits, numbers);
  if (best === 0) return 0;
  let least = squaredError(weights, start, best, bits, numbers);
  const tried = new Uint8Array(BLOCK);
  for (const share of CANDIDATES) {
    const refitted = encode(weights, start, first * share, bits, tried);
    const error = squaredError(weights, start, refitted, bits, tried);
    if (error < least) {
      [best, least] = [refitted, error];
      numbers.set(tried);
    }
  }
  return best;
}

function squaredError(weights: Float32Array, start: number, scale: number, bits: 4 | 8, numbers: Uint8Array): number {
  const zero = 1 << (bits - 1);
  let sum = 0;
  for (let i = 0; i < BLOCK; i++) {
    const difference = (weights[start + i] as number) - ((numbers[i] as number) - zero) * scale;
    sum += difference * difference;
  }
  return sum;
}
