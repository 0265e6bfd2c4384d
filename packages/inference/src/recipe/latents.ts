/**
 * Layouts of latents. Packed: [rows * columns, 4 * channels], a token for every 2x2 patch. Reference:
 * `_pack_latents`.
 */

/**
 * Packed tokens → [channels, 2 * rows, 2 * columns], times `std` plus `mean` per channel: as the decoder takes them.
 * Feature c * 4 + dy * 2 + dx of a token is channel c at (dy, dx) of its patch.
 */
export function unpackLatents(
  packed: Float32Array,
  rows: number,
  columns: number,
  mean: readonly number[],
  std: readonly number[],
): Float32Array {
  const channels = mean.length;
  const width = 2 * columns;
  const plane = 2 * rows * width;
  const out = new Float32Array(channels * plane);
  for (let y = 0; y < 2 * rows; y++) {
    for (let x = 0; x < width; x++) {
      const token = ((y >> 1) * columns + (x >> 1)) * 4 * channels;
      const corner = (y & 1) * 2 + (x & 1);
      for (let c = 0; c < channels; c++) {
        const value = packed[token + c * 4 + corner] as number;
        out[c * plane + y * width + x] = value * (std[c] as number) + (mean[c] as number);
      }
    }
  }
  return out;
}

/**
 * [channels, 2 * rows, 2 * columns] as the encoder gives them → packed tokens, less `mean` and over `std` per
 * channel: the reverse of `unpackLatents`.
 */
export function packLatents(
  planes: Float32Array,
  rows: number,
  columns: number,
  mean: readonly number[],
  std: readonly number[],
): Float32Array {
  const channels = mean.length;
  const width = 2 * columns;
  const plane = 2 * rows * width;
  const packed = new Float32Array(channels * plane);
  for (let y = 0; y < 2 * rows; y++) {
    for (let x = 0; x < width; x++) {
      const token = ((y >> 1) * columns + (x >> 1)) * 4 * channels;
      const corner = (y & 1) * 2 + (x & 1);
      for (let c = 0; c < channels; c++) {
        const value = planes[c * plane + y * width + x] as number;
        packed[token + c * 4 + corner] = (value - (mean[c] as number)) / (std[c] as number);
      }
    }
  }
  return packed;
}

/** Bytes RGBRGB… → planes [3, height, width] in [-1, 1]: as the encoder takes them. */
export function fromRgb(pixels: Uint8Array, height: number, width: number): Float32Array {
  const plane = height * width;
  const out = new Float32Array(3 * plane);
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) out[c * plane + i] = ((pixels[i * 3 + c] as number) / 255) * 2 - 1;
  }
  return out;
}

/** Planes [3, height, width] of values in [-1, 1] → bytes RGBRGB…, rounded as the reference does. */
export function toRgb(image: Float32Array, height: number, width: number): Uint8Array {
  const plane = height * width;
  const out = new Uint8Array(plane * 3);
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) {
      const value = Math.min(1, Math.max(-1, image[c * plane + i] as number));
      out[i * 3 + c] = Math.round((value / 2 + 0.5) * 255);
    }
  }
  return out;
}
