/** A synthetic block of the transformer, run: to see how long it takes, and whether it comes out right. */
import type { TransformerConfig } from '@qwen-supervisor/model/architecture';
import { jointRotary, type TransformerPart } from '@qwen-supervisor/model/transformer';
import { type InferenceSession, Tensor } from 'onnxruntime-node';
import { gaussianNoise } from './noise.js';

/** Of a prompt of some sentences. */
export const TEXT_TOKENS = 64;

/** The image's stream [side * side, dim] that a first block gives; see `blockFeeds`. */
export async function runBlock(session: InferenceSession, ...of: Parameters<typeof blockFeeds>): Promise<Float32Array> {
  const { nextImage } = await session.run(blockFeeds(...of));
  return (nextImage as Tensor).data as Float32Array;
}

/** For a first block, of a picture of `side` by `side` tokens; `height`: how large its modulation is. */
export function blockFeeds(
  { rows }: TransformerPart,
  widths: TransformerConfig,
  side: number,
  height = 1,
): Record<string, Tensor> {
  const { dim, headDim, inChannels, jointAttentionDim } = widths;
  const { cos, sin } = jointRotary(widths, TEXT_TOKENS, side, side);
  // No two tokens are alike: what attention leaves out shows.
  const noise = (seed: number, length: number, of = 1) => gaussianNoise(seed, length).map((value) => of * value);
  const rotary = [1, TEXT_TOKENS + side * side, headDim / 2];
  return {
    latents: new Tensor('float32', noise(1, side * side * inChannels), [side * side, inChannels]),
    text: new Tensor('float32', noise(2, TEXT_TOKENS * jointAttentionDim), [TEXT_TOKENS, jointAttentionDim]),
    cos: new Tensor('float32', cos, rotary),
    sin: new Tensor('float32', sin, rotary),
    modulation: new Tensor('float32', noise(3, rows * dim, height), [rows * dim]),
  };
}
