/**
 * A block of the transformer at Qwen-Image's own width, with weights that mean nothing: what it costs to compute does
 * not depend on them.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TransformerConfig } from './architecture.js';
import { type QuantisedWeight, Tensors } from './checkpoint.js';
import type { Accuracy, AttentionKind, Compute } from './layers.js';
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

/** Of the same kind and narrow: for whether a device computes right, which takes no time to find out. */
export const SMALL: TransformerConfig = { ...WIDTHS, numHeads: 2, dim: 256, jointAttentionDim: 256 };

/** Small enough that what goes through a layer stays of its size. */
const SCALE = 0.004;

/** Of a weight. */
type Bits = QuantisedWeight['bits'];

/**
 * The blocks in int4 or int8, each a part of its own, all with the same weights: in a file in `folder`, of 24 MB (int4)
 * if they are as wide as Qwen-Image's.
 */
export function syntheticBlocks(
  folder: string,
  accuracy: Accuracy,
  { attention, compute }: { attention: AttentionKind; compute: Compute },
  widths = WIDTHS,
  bits: Bits = 4,
): TransformerPart[] {
  const file = join(folder, `block-${widths.dim}-${bits}.bin`);
  if (!existsSync(file)) writeWeights(file, widths, bits);
  const tensors = new AnyTensors(file, widths, bits);
  return buildTransformer(widths, tensors, accuracy, { blocksPerPart: 1, kind: attention, compute });
}

/** The first of them: its inputs are those of the whole. */
export function syntheticBlock(...args: Parameters<typeof syntheticBlocks>): TransformerPart {
  return syntheticBlocks(...args)[0] as TransformerPart;
}

/** Codes that repeat, scales, ones. */
function writeWeights(file: string, widths: TransformerConfig, bits: Bits): void {
  const { codesBytes, scaleCount } = largestOf(widths, bits);
  const codes = Uint8Array.from({ length: codesBytes }, (_, i) => Math.imul(i, 2654435761) >>> 24);
  const scales = new Float32Array(scaleCount).fill(scaleOf(bits));
  const ones = new Float32Array(widths.jointAttentionDim).fill(1);
  writeFileSync(file, Buffer.concat([codes, bytesOf(scales), bytesOf(ones)]));
}

/** Codes of eight bits are sixteen times as large. */
function scaleOf(bits: Bits): number {
  return bits === 4 ? SCALE : SCALE / 16;
}

/** Of the widest weight: bytes of its codes, and its scales. Those of all others lie in the same place. */
function largestOf({ dim }: TransformerConfig, bits: Bits): { codesBytes: number; scaleCount: number } {
  return { codesBytes: (4 * dim * dim * bits) / 8, scaleCount: (4 * dim * dim) / BLOCK };
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** Whatever tensor is asked for. */
class AnyTensors extends Tensors {
  readonly #file: string;
  readonly #codesBytes: number;
  readonly #scalesBytes: number;
  readonly #bits: Bits;

  constructor(file: string, widths: TransformerConfig, bits: Bits) {
    super('transformer', new Map());
    this.#bits = bits;
    const { codesBytes, scaleCount } = largestOf(widths, bits);
    [this.#file, this.#codesBytes, this.#scalesBytes] = [file, codesBytes, 4 * scaleCount];
  }

  override get(name: string, shape: readonly number[]): TensorEntry {
    // Norms multiply by one; biases are as small as scales.
    const isNorm = name.includes('norm') && name.endsWith('.weight');
    return this.#entry(name, 'F32', shape, this.#codesBytes + (isNorm ? this.#scalesBytes : 0));
  }

  override quantised(name: string, [rows, columns]: readonly [number, number]): QuantisedWeight {
    const blocks = columns / BLOCK;
    return {
      bits: this.#bits,
      codes: this.#entry(`${name}.codes`, 'U8', [rows, blocks, (BLOCK * this.#bits) / 8], 0),
      scales: this.#entry(`${name}.scales`, 'F32', [rows * blocks], this.#codesBytes),
    };
  }

  #entry(name: string, dtype: 'F32' | 'U8', shape: readonly number[], offset: number): TensorEntry {
    const length = (dtype === 'U8' ? 1 : 4) * elementCount(shape);
    return { name, dtype, shape: [...shape], file: this.#file, offset, length };
  }
}
