/**
 * A block of the transformer at Qwen-Image's own width, with weights that mean nothing: what it costs to compute does
 * not depend on them.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TransformerConfig } from './architecture.js';
import { type QuantisedWeight, Tensors } from './checkpoint.js';
import type { Accuracy, AttentionKind } from './layers.js';
import { BLOCK } from './prepare/quantise.js';
import { elementCount, type TensorEntry } from './safetensors.js';
import { buildTransformer, type TransformerPart } from './transformer.js';

/** Qwen-Image's, but for the number of blocks: the first of two is one of the usual kind. */
export const WIDTHS: TransformerConfig = {
  numLayers: 2,
  numHeads: 24,
  headDim: 128,
  dim: 3072,
  inChannels: 64,
  outChannels: 16,
  patchSize: 2,
  jointAttentionDim: 3584,
  axesDimsRope: [16, 56, 56],
};

/** Of the widest weight: bytes of its codes in 4 bits, and its scales. Those of all others lie in the same place. */
const CODES_BYTES = (4 * WIDTHS.dim * WIDTHS.dim) / 2;
const SCALES = (4 * WIDTHS.dim * WIDTHS.dim) / BLOCK;
/** Small enough that what goes through a layer stays of its size. */
const SCALE = 0.004;

/** One block in int4, its weights in a file of 24 MB in `folder`. Inputs and outputs are those of a first part. */
export function syntheticBlock(folder: string, accuracy: Accuracy, attention: AttentionKind): TransformerPart {
  const file = join(folder, 'block.bin');
  writeWeights(file);
  const [part] = buildTransformer(WIDTHS, new AnyTensors(file), accuracy, 1, attention);
  return part as TransformerPart;
}

/** Codes that repeat, scales, ones. */
function writeWeights(file: string): void {
  const codes = Uint8Array.from({ length: CODES_BYTES }, (_, i) => Math.imul(i, 2654435761) >>> 24);
  const scales = new Float32Array(SCALES).fill(SCALE);
  const ones = new Float32Array(WIDTHS.jointAttentionDim).fill(1);
  writeFileSync(file, Buffer.concat([codes, bytesOf(scales), bytesOf(ones)]));
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** Whatever tensor is asked for. */
class AnyTensors extends Tensors {
  readonly #file: string;

  constructor(file: string) {
    super('transformer', new Map());
    this.#file = file;
  }

  override get(name: string, shape: readonly number[]): TensorEntry {
    // Norms multiply by one; biases are as small as scales.
    const isNorm = name.includes('norm') && name.endsWith('.weight');
    return this.#entry(name, 'F32', shape, CODES_BYTES + (isNorm ? 4 * SCALES : 0));
  }

  override quantised(name: string, [rows, columns]: readonly [number, number]): QuantisedWeight {
    const blocks = columns / BLOCK;
    return {
      bits: 4,
      codes: this.#entry(`${name}.codes`, 'U8', [rows, blocks, BLOCK / 2], 0),
      scales: this.#entry(`${name}.scales`, 'F32', [rows * blocks], CODES_BYTES),
    };
  }

  #entry(name: string, dtype: 'F32' | 'U8', shape: readonly number[], offset: number): TensorEntry {
    const length = (dtype === 'U8' ? 1 : 4) * elementCount(shape);
    return { name, dtype, shape: [...shape], file: this.#file, offset, length };
  }
}
