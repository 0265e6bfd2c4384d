/** What a model needs of memory: counted from its graphs, with factors that were measured. */
import type { Architecture } from '../architecture.js';
import { type Graphs, hasCodes } from '../graphs.js';
import type { Accuracy, Compute } from '../layers.js';
import type { OnnxGraph } from '../onnx.js';
import { precisionOf, type Quantisation } from '../prepare/precision.js';
import { BLOCK, SCALES } from '../prepare/quantise.js';
import { elementCount } from '../safetensors.js';

/** Numbers of weights by how they are kept. */
export interface WeightCounts {
  float32: number;
  int8: number;
  int4: number;
}

/** The parts of a model that are in memory together. */
export const STAGES = ['text_encoder', 'transformer', 'vae'] as const;
export type Stage = (typeof STAGES)[number];

export interface ModelCosts {
  weights: Record<Stage, WeightCounts>;
  /** Bytes while a picture of so many pixels goes through the stage, beyond its weights. */
  activations(stage: Stage, pixels: number, accuracy: Accuracy): number;
  /** Bytes beyond that where attention is not one operator: the scores of one block, and their softmax. */
  scoreBytes(pixels: number): number;
  /** The same of the VAE, whose one head is wider than fused operators may take. */
  decodedScoreBytes(pixels: number): number;
  /** Into how many sessions the transformer is cut on CUDA, each of which keeps what its runs have taken. */
  cudaParts: number;
  /** Multiplications and additions of one pass of the transformer for a picture of so many pixels. */
  operations(pixels: number): number;
  /** The same of the decoder. */
  decodeOperations(pixels: number): number;
}

/**
 * Bytes of memory for a weight, as ONNX Runtime 1.30 keeps it on a processor: copies of its own, and what it maps of
 * the file. Measured at full width with sessions of four blocks; within a twentieth.
 */
const BYTES: Record<keyof WeightCounts, Record<Accuracy, { own: number; mapped: number }>> = {
  float32: { 0: { own: 4, mapped: 0 }, 4: { own: 4, mapped: 0 } },
  int8: { 0: { own: 0, mapped: 1.13 }, 4: { own: 1.22, mapped: 0.13 } },
  int4: { 0: { own: 0.5, mapped: 0.13 }, 4: { own: 0.76, mapped: 0.13 } },
};
/** Of what is mapped: the rest may be read again in every step, in seconds of its minute. */
const MAPPED_SHARE = 0.5;
/** Values that are alive at once, in widths of the residual stream and per token. Measured: 12.2. */
const WIDTHS_PER_TOKEN = 12.5;
/** Planes of the outermost level that are alive at once. Measured: 3.8 (decoder) and 4 (encoder). */
const VAE_PLANES = 4.1;
/** Operations of the decoder by pixel and width of its outermost level, squared: counted at 96. */
const DECODE_OPERATIONS = 500;
/** Tokens of a prompt of some sentences. */
const TEXT_TOKENS = 64;
/** Tokens of the longest prompt, with its template. */
const TEXT_TOKENS_MAX = 1060;
/** Pixels of a token's side. */
const TOKEN_SIDE = 16;
/** Pixels of a latent's side, over which the VAE attends. */
const LATENT_SIDE = 8;

/** `quantisation`: what float32 weights will be prepared to; 'none' for a model as it lies there. */
export function costsOf(
  { transformer, textEncoder, vae }: Architecture,
  graphs: Graphs,
  quantisation: Quantisation,
): ModelCosts {
  const counts = (stage: Stage, of: OnnxGraph[], layers: number) =>
    countWeights(of, (name) => precisionOf(stage, name, quantisation, layers));
  const parts = graphs.transformer.map(({ graph }) => graph);
  const weights = {
    text_encoder: counts('text_encoder', [graphs.textEncoder], textEncoder.numLayers),
    transformer: counts('transformer', parts, transformer.numLayers),
    vae: counts('vae', [graphs.decoder, graphs.encoder], 0),
  };
  const { dim } = transformer;
  const tokensOf = (pixels: number) => pixels / TOKEN_SIDE ** 2;
  return {
    weights,
    activations(stage, pixels, accuracy) {
      if (stage === 'vae') return VAE_PLANES * vae.baseDim * 4 * pixels;
      if (stage === 'text_encoder')
        return (3 * textEncoder.intermediateSize + 8 * textEncoder.hiddenSize) * 4 * TEXT_TOKENS_MAX;
      // In float32 a layer's weights are unpacked piece by piece: at most the widest of them.
      const unpacked = accuracy === 0 ? 4 * dim * dim * 4 : 0;
      return WIDTHS_PER_TOKEN * dim * 4 * (tokensOf(pixels) + TEXT_TOKENS_MAX) + unpacked;
    },
    scoreBytes: (pixels) => (2 * 4 * dim * (tokensOf(pixels) + TEXT_TOKENS_MAX) ** 2) / transformer.headDim,
    decodedScoreBytes: (pixels) => 2 * 4 * (pixels / LATENT_SIDE ** 2) ** 2,
    cudaParts: quantisation !== 'none' || parts.some(hasCodes) ? 1 : parts.length,
    operations(pixels) {
      const { float32, int8, int4 } = weights.transformer;
      // Half of the weights are for the image's tokens, the other half for the text's.
      const [tokens, together] = [tokensOf(pixels), tokensOf(pixels) + TEXT_TOKENS];
      const attention = 4 * together * together * dim * transformer.numLayers;
      return (float32 + int8 + int4) * (tokens + TEXT_TOKENS) + attention;
    },
    decodeOperations: (pixels) => DECODE_OPERATIONS * vae.baseDim ** 2 * pixels,
  };
}

/** Bytes of memory without which a stage's weights cannot be computed with at full speed, or nearly. */
export function weightMemory(counts: WeightCounts, accuracy: Accuracy): number {
  return (Object.keys(BYTES) as (keyof WeightCounts)[]).reduce((sum, kind) => {
    const { own, mapped } = BYTES[kind][accuracy];
    return sum + counts[kind] * (own + MAPPED_SHARE * mapped);
  }, 0);
}

/** The same on a graphics card, which takes weights as they are kept, with a scale by block of 32. */
export function cardWeightMemory({ float32, int8, int4 }: WeightCounts, compute: Compute): number {
  const float = compute === 'float32' ? 4 : 2;
  const scale = float / BLOCK;
  return float * float32 + (1 + scale) * int8 + (0.5 + scale) * int4;
}

function countWeights(graphs: OnnxGraph[], precision: (name: string) => keyof WeightCounts): WeightCounts {
  const counts = { float32: 0, int8: 0, int4: 0 };
  for (const { name, type, dims } of graphs.flatMap(({ weights }) => weights)) {
    if (type === 'uint8') {
      const [rows, blocks, bytes] = dims as [number, number, number];
      counts[bytes === BLOCK ? 'int8' : 'int4'] += rows * blocks * BLOCK;
    } else if (!name.endsWith(SCALES)) counts[precision(name)] += elementCount(dims);
  }
  return counts;
}
