/**
 * Small previews while a picture is denoised: a linear map from latents to colours, fitted once to the loaded
 * decoder, so that any checkpoint gets one and a preview costs nothing next to a step.
 */

import { VAE_SCALE } from '@qwen-supervisor/model/vae';
import type { FloatCache } from './float-cache.js';
import { toRgb, unpackLatents } from './latents.js';
import { gaussianNoise } from './noise.js';
import { cleanLatents, type StepState } from './pipeline.js';
import type { Sessions } from './sessions.js';

/** Per colour: one weight per latent channel, then a constant. */
export type PreviewMap = Float64Array[];

export interface Preview {
  /** RGBRGB… */
  pixels: Uint8Array;
  width: number;
  height: number;
}

/** Side of the fitting canvas in blocks, and of a block in latent pixels. */
const BLOCKS = 6;
const BLOCK = 4;

/** As it is kept in `cache` under `identity`, what it depends on; else fitted anew. */
export async function previewMap(sessions: Sessions, cache: FloatCache, identity: string): Promise<PreviewMap> {
  const kept = cache.get(identity);
  if (kept) return [0, 1, 2].map((colour) => Float64Array.from(kept).subarray(...third(kept.length, colour)));
  const map = await fitPreview(sessions);
  cache.put(identity, Float32Array.from(map.flatMap((weights) => [...weights])));
  return map;
}

const third = (length: number, n: number): [number, number] => [(n * length) / 3, ((n + 1) * length) / 3];

/** Decodes one canvas of random even blocks and fits their middle colours by least squares. */
export async function fitPreview(sessions: Sessions): Promise<PreviewMap> {
  const { zDim, latentsMean, latentsStd } = sessions.architecture.vae;
  const side = BLOCKS * BLOCK;
  const values = gaussianNoise(0, BLOCKS * BLOCKS * zDim);
  const latents = new Float32Array(zDim * side * side);
  for (let c = 0; c < zDim; c++) {
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        const block = Math.floor(y / BLOCK) * BLOCKS + Math.floor(x / BLOCK);
        const value = values[block * zDim + c] as number;
        latents[(c * side + y) * side + x] = value * (latentsStd[c] as number) + (latentsMean[c] as number);
      }
    }
  }
  const image = (await sessions.decode(latents, side, side)) as Float32Array;
  const width = side * VAE_SCALE;
  const rows = Array.from({ length: BLOCKS * BLOCKS }, (_, block) => [
    ...values.subarray(block * zDim, (block + 1) * zDim),
    1,
  ]);
  return [0, 1, 2].map((colour) => {
    const targets = rows.map((_, block) => {
      const y = (Math.floor(block / BLOCKS) * BLOCK + BLOCK / 2) * VAE_SCALE;
      const x = ((block % BLOCKS) * BLOCK + BLOCK / 2) * VAE_SCALE;
      return image[(colour * width + y) * width + x] as number;
    });
    return leastSquares(rows, targets);
  });
}

/** The clean picture that the last step points at, one pixel per latent. */
export function drawPreview(map: PreviewMap, state: StepState): Preview {
  const { rows, columns } = state;
  const clean = cleanLatents(state);
  const channels = (map[0] as Float64Array).length - 1;
  const planes = unpackLatents(clean, rows, columns, new Array(channels).fill(0), new Array(channels).fill(1));
  const size = 4 * rows * columns;
  const image = new Float32Array(3 * size);
  map.forEach((weights, colour) => {
    image.fill(weights[channels] as number, colour * size, (colour + 1) * size);
    for (let c = 0; c < channels; c++) {
      for (let i = 0; i < size; i++) {
        const at = colour * size + i;
        image[at] = (image[at] as number) + (weights[c] as number) * (planes[c * size + i] as number);
      }
    }
  });
  return { pixels: toRgb(image, 2 * rows, 2 * columns), width: 2 * columns, height: 2 * rows };
}

/** Keeps the matrix of the normal equations from being singular. */
const RIDGE = 1e-3;

/** Solves the normal equations, slightly regularised, by elimination: the matrix is positive definite and tiny. */
function leastSquares(rows: number[][], targets: number[]): Float64Array {
  const n = (rows[0] as number[]).length;
  // Xᵀ X, and behind it Xᵀ y.
  const matrix = Array.from({ length: n }, (_, i) => {
    const line = new Array<number>(n + 1).fill(0);
    line[i] = RIDGE;
    rows.forEach((row, k) => {
      const x = row[i] as number;
      for (let j = 0; j < n; j++) line[j] = (line[j] as number) + x * (row[j] as number);
      line[n] = (line[n] as number) + x * (targets[k] as number);
    });
    return line;
  });
  for (let pivot = 0; pivot < n; pivot++) {
    const top = matrix[pivot] as number[];
    for (let i = 0; i < n; i++) {
      if (i === pivot) continue;
      const row = matrix[i] as number[];
      const factor = (row[pivot] as number) / (top[pivot] as number);
      for (let j = pivot; j <= n; j++) row[j] = (row[j] as number) - factor * (top[j] as number);
    }
  }
  return Float64Array.from(
    { length: n },
    (_, i) => ((matrix[i] as number[])[n] as number) / ((matrix[i] as number[])[i] as number),
  );
}
