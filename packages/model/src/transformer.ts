/**
 * `QwenImageTransformer2DModel` as two ONNX graphs. Reference: diffusers `transformer_qwenimage.py`.
 *
 * A third of the model's weights are modulation: linear layers of the timestep alone. They are a graph of their own, run
 * once for all timesteps of a job, so that a denoising step streams only the other two thirds through memory.
 */
import type { TransformerConfig } from './architecture.js';
import type { Tensors } from './checkpoint.js';
import { MICROSOFT, OnnxGraph } from './onnx.js';

const EPSILON = 1e-6;
/** Width of the sinusoidal timestep embedding, a constant of the reference. */
export const TIME_CHANNELS = 256;
/** Rows of modulation per block and stream: shift1, scale1, gate1, shift2, scale2, gate2. */
const ROWS = 6;

/** Rows of `dim` values that one timestep's modulation has: both streams of every block, then final scale and shift. */
export function modulationRows(config: TransformerConfig): number {
  return config.numLayers * 2 * ROWS + 2;
}

/**
 * Input `time` [steps, 256]; output `modulation` [steps, rows * dim]. One is already added to every scale, so that a
 * modulated LayerNorm is a LayerNormalization whose scale and bias are inputs.
 */
export function buildModulation(config: TransformerConfig, tensors: Tensors): OnnxGraph {
  const { dim } = config;
  const g = new OnnxGraph('modulation');
  const linear = (x: string, name: string, rows: number, columns: number) =>
    g.node(
      'Gemm',
      [x, g.weight(tensors.get(`${name}.weight`, [rows, columns])), g.weight(tensors.get(`${name}.bias`, [rows]))],
      {
        transB: 1,
      },
    );
  const silu = (x: string) => g.node('Mul', [x, g.node('Sigmoid', [x])]);
  const onesAt = (rows: number, scales: number[]) => {
    const ones = new Float32Array(rows * dim);
    for (const row of scales) ones.fill(1, row * dim, (row + 1) * dim);
    return g.floats(ones);
  };

  const time = g.input('time', ['steps', TIME_CHANNELS]);
  const embedded = silu(linear(time, 'time_text_embed.timestep_embedder.linear_1', dim, TIME_CHANNELS));
  const temb = silu(linear(embedded, 'time_text_embed.timestep_embedder.linear_2', dim, dim));
  const blockOnes = onesAt(ROWS, [1, 4]);
  const parts: string[] = [];
  for (let i = 0; i < config.numLayers; i++) {
    for (const stream of ['img_mod', 'txt_mod']) {
      const rows = linear(temb, `transformer_blocks.${i}.${stream}.1`, ROWS * dim, dim);
      parts.push(g.node('Add', [rows, blockOnes]));
    }
  }
  // The final layer's order is scale, shift: the opposite of the blocks.
  parts.push(g.node('Add', [linear(temb, 'norm_out.linear', 2 * dim, dim), onesAt(2, [0])]));
  g.output('modulation', g.node('Concat', parts, { axis: 1 }), ['steps', modulationRows(config) * dim]);
  return g;
}

/**
 * Inputs `latents` [s, inChannels] packed tokens, `text` [t, jointAttentionDim], `modulation` [rows * dim] of one
 * timestep, `cos` and `sin` [1, t + s, headDim/2], text first; output `velocity` [s, inChannels].
 */
export function buildTransformer(config: TransformerConfig, tensors: Tensors): OnnxGraph {
  const { dim, headDim, numHeads, inChannels, jointAttentionDim } = config;
  const g = new OnnxGraph('transformer');
  const linear = (x: string, name: string, rows: number, columns: number) =>
    g.node(
      'Gemm',
      [x, g.weight(tensors.get(`${name}.weight`, [rows, columns])), g.weight(tensors.get(`${name}.bias`, [rows]))],
      {
        transB: 1,
      },
    );
  const rmsNorm = (x: string, name: string, width: number) =>
    g.node('SimplifiedLayerNormalization', [x, g.weight(tensors.get(name, [width]))], {
      axis: -1,
      epsilon: { float: EPSILON },
    });
  const modulated = (x: string, scale: string, shift: string) =>
    g.node('LayerNormalization', [x, scale, shift], { axis: -1, epsilon: { float: EPSILON } });
  const gated = (x: string, gate: string, out: string) => g.node('Add', [x, g.node('Mul', [gate, out])]);
  /** [n, dim] → RMS norm of every head → [1, n, dim]. */
  const normedHeads = (x: string, name: string) =>
    g.node('Reshape', [
      rmsNorm(g.node('Reshape', [x, g.ints([0, numHeads, headDim])]), name, headDim),
      g.ints([1, -1, dim]),
    ]);

  const latents = g.input('latents', ['s', inChannels]);
  const text = g.input('text', ['t', jointAttentionDim]);
  const modulation = g.input('modulation', [modulationRows(config) * dim]);
  const cos = g.input('cos', [1, 'n', headDim / 2]);
  const sin = g.input('sin', [1, 'n', headDim / 2]);
  const rotate = (x: string) => g.node('RotaryEmbedding', [x, cos, sin], { num_heads: numHeads, interleaved: 1 });

  const rows = g.nodes('Split', [modulation], modulationRows(config), { axis: 0, num_outputs: modulationRows(config) });
  const row = (block: number, stream: number, index: number) => rows[(block * 2 + stream) * ROWS + index] as string;
  // Text comes first in the joint sequence; the image tokens are the rest.
  const textLength = g.node('Shape', [text], { start: 0, end: 1 });
  const imageLength = g.node('Shape', [latents], { start: 0, end: 1 });
  const lengths = g.node('Concat', [textLength, imageLength], { axis: 0 });

  let image = linear(latents, 'img_in', dim, inChannels);
  let words = linear(rmsNorm(text, 'txt_norm.weight', jointAttentionDim), 'txt_in', dim, jointAttentionDim);

  for (let i = 0; i < config.numLayers; i++) {
    const block = `transformer_blocks.${i}`;
    const last = i === config.numLayers - 1;
    const imageIn = modulated(image, row(i, 0, 1), row(i, 0, 0));
    const wordsIn = modulated(words, row(i, 1, 1), row(i, 1, 0));
    const project = (x: string, name: string) => linear(x, `${block}.attn.${name}`, dim, dim);
    const joint = (wordsPart: string, imagePart: string) => g.node('Concat', [wordsPart, imagePart], { axis: 1 });
    const batched = (x: string) => g.node('Unsqueeze', [x, g.ints([0])]);
    const q = joint(
      normedHeads(project(wordsIn, 'add_q_proj'), `${block}.attn.norm_added_q.weight`),
      normedHeads(project(imageIn, 'to_q'), `${block}.attn.norm_q.weight`),
    );
    const k = joint(
      normedHeads(project(wordsIn, 'add_k_proj'), `${block}.attn.norm_added_k.weight`),
      normedHeads(project(imageIn, 'to_k'), `${block}.attn.norm_k.weight`),
    );
    const v = joint(batched(project(wordsIn, 'add_v_proj')), batched(project(imageIn, 'to_v')));
    const attention = g.node('MultiHeadAttention', [rotate(q), rotate(k), v], { num_heads: numHeads }, MICROSOFT);
    const [wordsOut, imageOut] = g.nodes('Split', [g.node('Squeeze', [attention, g.ints([0])]), lengths], 2, {
      axis: 0,
    }) as [string, string];

    const mlp = (x: string, name: string) => {
      const hidden = linear(x, `${block}.${name}.net.0.proj`, 4 * dim, dim);
      return linear(g.node('Gelu', [hidden], { approximate: 'tanh' }), `${block}.${name}.net.2`, dim, 4 * dim);
    };
    image = gated(image, row(i, 0, 2), project(imageOut, 'to_out.0'));
    image = gated(image, row(i, 0, 5), mlp(modulated(image, row(i, 0, 4), row(i, 0, 3)), 'img_mlp'));
    // Nothing reads the last block's text stream.
    if (last) continue;
    words = gated(words, row(i, 1, 2), project(wordsOut, 'to_add_out'));
    words = gated(words, row(i, 1, 5), mlp(modulated(words, row(i, 1, 4), row(i, 1, 3)), 'txt_mlp'));
  }
  const [scale, shift] = rows.slice(-2) as [string, string];
  g.output('velocity', linear(modulated(image, scale, shift), 'proj_out', inChannels, dim), ['s', inChannels]);
  return g;
}

/**
 * Sinusoidal embeddings [n, 256] of timesteps in [0, 1], cosines first.
 * Reference: diffusers `Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0, scale=1000)`.
 */
export function timeEmbedding(timesteps: Float32Array): Float32Array {
  const half = TIME_CHANNELS / 2;
  const out = new Float32Array(timesteps.length * TIME_CHANNELS);
  for (let i = 0; i < half; i++) {
    const frequency = Math.fround(Math.exp(Math.fround((-Math.log(10_000) * i) / half)));
    timesteps.forEach((t, n) => {
      const angle = Math.fround(1000 * Math.fround(t * frequency));
      out[n * TIME_CHANNELS + i] = Math.cos(angle);
      out[n * TIME_CHANNELS + half + i] = Math.sin(angle);
    });
  }
  return out;
}

/**
 * Rotary tables [textTokens + rows * columns, headDim/2] of one image of `rows` by `columns` packed tokens.
 * Image positions are centred on zero; text follows on the diagonal. Reference: `QwenEmbedRope`, scale_rope.
 */
export function jointRotary(
  config: TransformerConfig,
  textTokens: number,
  rows: number,
  columns: number,
): { cos: Float32Array; sin: Float32Array } {
  const half = config.headDim / 2;
  const cos = new Float32Array((textTokens + rows * columns) * half);
  const sin = new Float32Array(cos.length);
  const frequencies = config.axesDimsRope.map((axis) =>
    Float32Array.from({ length: axis / 2 }, (_, i) => 1 / Math.fround(10_000 ** Math.fround((2 * i) / axis))),
  );
  const write = (token: number, positions: readonly [number, number, number]) => {
    let at = token * half;
    frequencies.forEach((axis, n) => {
      for (const frequency of axis) {
        const angle = Math.fround((positions[n] as number) * frequency);
        cos[at] = Math.cos(angle);
        sin[at] = Math.sin(angle);
        at++;
      }
    });
  };
  const textStart = Math.max(Math.floor(rows / 2), Math.floor(columns / 2));
  for (let j = 0; j < textTokens; j++) write(j, [textStart + j, textStart + j, textStart + j]);
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      write(textTokens + y * columns + x, [0, y - Math.ceil(rows / 2), x - Math.ceil(columns / 2)]);
    }
  }
  return { cos, sin };
}
