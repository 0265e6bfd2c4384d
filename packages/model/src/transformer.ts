/**
 * `QwenImageTransformer2DModel` as ONNX graphs. Reference: diffusers `transformer_qwenimage.py`.
 *
 * A third of the model's weights are modulation: linear layers of the timestep alone. They are in no graph: their
 * output is computed layer by layer for all timesteps of a job (`modulationLayers`), so that a denoising step streams
 * only the other two thirds through memory.
 */
import type { TransformerConfig } from './architecture.js';
import type { Tensors } from './checkpoint.js';
import {
  type Accuracy,
  type AttentionKind,
  attention,
  type Compute,
  linear,
  linearToFloat32,
  narrow,
  rmsNorm,
} from './layers.js';
import { OnnxGraph } from './onnx.js';
import type { Lora } from './prepare/lora.js';
import type { TensorEntry } from './safetensors.js';

const EPSILON = 1e-6;
/** Width of the sinusoidal timestep embedding, a constant of the reference. */
export const TIME_CHANNELS = 256;
/** Rows of modulation per block and stream: shift1, scale1, gate1, shift2, scale2, gate2. */
const ROWS = 6;
/**
 * Blocks of one graph. A run of a session cannot be interrupted; between two of them somebody who cancels is heard, and
 * the step's progress is told.
 */
export const BLOCKS_PER_PART = 10;
/**
 * What values are divided by where they are computed in 16 bits: float16 ends at 65504. What goes into attention; what
 * comes out of it; and the MLP's inner values. Reference: Draw Things, "Optimizing Qwen Image for Edge Devices".
 */
const SMALLER = { attention: 8, attended: 16, hidden: 32 } as const;

/** Rows of `dim` values that one timestep's modulation has: both streams of every block, then final scale and shift. */
export function modulationRows(config: TransformerConfig): number {
  return config.numLayers * 2 * ROWS + 2;
}

/** A linear layer: weight [rows, columns], bias [rows]. */
export interface LinearLayer {
  weight: TensorEntry;
  bias: TensorEntry;
  /** What is added to the weight. */
  lora: Lora | null;
}

/** The layers that make a timestep's modulation. */
export interface ModulationLayers {
  /** Of the sinusoidal embedding (`timeEmbedding`): each is followed by SiLU. */
  embed: [LinearLayer, LinearLayer];
  /** Of what `embed` gives; their outputs one after the other are the modulation. */
  layers: (LinearLayer & {
    /** Outputs of `dim` values to which one is added: a modulated LayerNorm is one whose scale and bias are inputs. */
    scales: number[];
  })[];
}

export function modulationLayers(
  config: TransformerConfig,
  tensors: Tensors,
  loras: Map<string, Lora>,
): ModulationLayers {
  const { dim } = config;
  const layer = (name: string, rows: number, columns: number): LinearLayer => ({
    weight: tensors.get(`${name}.weight`, [rows, columns]),
    bias: tensors.get(`${name}.bias`, [rows]),
    lora: loras.get(name) ?? null,
  });
  const ofBlocks = Array.from({ length: config.numLayers }, (_, i) =>
    ['img_mod', 'txt_mod'].map((stream) => ({
      ...layer(`transformer_blocks.${i}.${stream}.1`, ROWS * dim, dim),
      scales: [1, 4],
    })),
  );
  return {
    embed: [
      layer('time_text_embed.timestep_embedder.linear_1', dim, TIME_CHANNELS),
      layer('time_text_embed.timestep_embedder.linear_2', dim, dim),
    ],
    // The final layer's order is scale, shift: the opposite of the blocks.
    layers: [...ofBlocks.flat(), { ...layer('norm_out.linear', 2 * dim, dim), scales: [0] }],
  };
}

/** A run of blocks, and which rows of the modulation are theirs. */
export interface TransformerPart {
  graph: OnnxGraph;
  firstRow: number;
  rows: number;
}

/**
 * The network in parts of at most `blocksPerPart` blocks, to be run one after the other. Inputs of each: `modulation`
 * [rows * dim] of one timestep, its part; `cos` and `sin` [1, t + s, headDim/2], text first; of the first `latents`
 * [s, inChannels] packed tokens and `text` [t, jointAttentionDim], of the others the `image` [s, dim] and `words`
 * [t, dim] that the part before has given as `nextImage` and `nextWords`. The last one gives `velocity` [s,
 * inChannels].
 */
export function buildTransformer(
  config: TransformerConfig,
  tensors: Tensors,
  accuracy: Accuracy,
  {
    blocksPerPart = BLOCKS_PER_PART,
    kind = 'fused',
    compute = 'float32',
  }: { blocksPerPart?: number | undefined; kind?: AttentionKind; compute?: Compute } = {},
): TransformerPart[] {
  const parts = Math.ceil(config.numLayers / blocksPerPart);
  return Array.from({ length: parts }, (_, n) => {
    // As even as can be: the longest run is what somebody who cancels waits for.
    const [first, end] = [n, n + 1].map((k) => Math.round((k * config.numLayers) / parts)) as [number, number];
    return buildPart(config, tensors, { accuracy, kind, compute }, first, end);
  });
}

/** Blocks `first` to `end`, without `end`. */
function buildPart(
  config: TransformerConfig,
  tensors: Tensors,
  { accuracy: wanted, kind, compute }: { accuracy: Accuracy; kind: AttentionKind; compute: Compute },
  first: number,
  end: number,
): TransformerPart {
  const { dim, headDim, numHeads, numLayers, inChannels, jointAttentionDim } = config;
  // Kernels of cards keep the sum of 8-bit products, and its scale, in the type that they compute in: in float16 the
  // one is too large for it and the other too small.
  const accuracy = compute === 'float32' ? wanted : 0;
  const firstRow = first * 2 * ROWS;
  const lastRow = end === numLayers ? modulationRows(config) : end * 2 * ROWS;
  const g = new OnnxGraph(first === 0 ? 'transformer' : `transformer_${first}`);
  const dense = (x: string, name: string, rows: number, columns: number) =>
    linear(g, tensors, x, name, [rows, columns], { accuracy });
  /** A value of the type `compute`, divided by `by`. */
  const narrowed = (x: string, by: number) =>
    compute === 'float32' ? x : g.node('Mul', [x, narrow(g, g.scalar(1 / by), compute)]);
  const modulated = (x: string, scale: string, shift: string) =>
    g.node('LayerNormalization', [x, scale, shift], { axis: -1, epsilon: { float: EPSILON } });
  const gated = (x: string, gate: string, out: string) => g.node('Add', [x, g.node('Mul', [gate, out])]);
  /** [n, dim] → RMS norm of every head → [1, n, dim]. */
  const normedHeads = (x: string, name: string) => {
    const heads = g.node('Reshape', [x, g.ints([0, numHeads, headDim])]);
    // Of values that were divided: their squares are smaller beside the epsilon.
    const epsilon = compute === 'float32' ? EPSILON : EPSILON / SMALLER.attention ** 2;
    return g.node('Reshape', [rmsNorm(g, tensors, heads, name, headDim, epsilon, compute), g.ints([1, -1, dim])]);
  };

  let [image, words] = first === 0 ? embed() : [g.input('image', ['s', dim]), g.input('words', ['t', dim])];
  const modulation = g.input('modulation', [(lastRow - firstRow) * dim]);
  const cos = narrow(g, g.input('cos', [1, 'n', headDim / 2]), compute);
  const sin = narrow(g, g.input('sin', [1, 'n', headDim / 2]), compute);
  const rotate = (x: string) => g.node('RotaryEmbedding', [x, cos, sin], { num_heads: numHeads, interleaved: 1 });

  function embed(): [string, string] {
    const latents = g.input('latents', ['s', inChannels]);
    const text = g.input('text', ['t', jointAttentionDim]);
    const normedText = rmsNorm(g, tensors, text, 'txt_norm.weight', jointAttentionDim, EPSILON); // [t, jointAttentionDim]
    return [dense(latents, 'img_in', dim, inChannels), dense(normedText, 'txt_in', dim, jointAttentionDim)];
  }
  /** Rows of the modulation, each [dim]; few at once: providers for graphics cards bind a dozen outputs to a node. */
  const rowsFrom = (row: number, count: number) => {
    const [start, stop] = [row, row + count].map((n) => g.ints([(n - firstRow) * dim])) as [string, string];
    const part = g.node('Slice', [modulation, start, stop, g.ints([0])]); // [count * dim]
    return g.nodes('Split', [part], count, { axis: 0, num_outputs: count });
  };
  /** Of one block and stream, each [dim]: for attention (1) and for the MLP (2). */
  const modulationOf = (block: number, stream: 'image' | 'text') => {
    type Six = [string, string, string, string, string, string];
    const rows = rowsFrom((2 * block + (stream === 'image' ? 0 : 1)) * ROWS, ROWS) as Six;
    const [shift1, scale1, gate1, shift2, scale2, gate2] = rows;
    return { shift1, scale1, gate1, shift2, scale2, gate2 };
  };
  // Text comes first in the joint sequence; the image tokens are the rest.
  const textLength = g.node('Shape', [words], { start: 0, end: 1 });
  const [start, rest] = [g.ints([0]), g.ints([2 ** 31 - 1])];

  for (let i = first; i < end; i++) {
    const block = `transformer_blocks.${i}`;
    const isLast = i === numLayers - 1;
    const ofImage = modulationOf(i, 'image');
    const ofText = modulationOf(i, 'text');
    const project = (x: string, name: string) =>
      linear(g, tensors, x, `${block}.attn.${name}`, [dim, dim], { accuracy, compute, by: SMALLER.attention });
    const projectOut = (x: string, name: string) => {
      const smaller = narrowed(x, SMALLER.attended / SMALLER.attention);
      const options = { accuracy, compute, by: SMALLER.attended };
      return linearToFloat32(g, tensors, smaller, `${block}.attn.${name}`, [dim, dim], options);
    };
    const joint = (wordsPart: string, imagePart: string) => g.node('Concat', [wordsPart, imagePart], { axis: 1 });
    const batched = (x: string) => g.node('Unsqueeze', [x, g.ints([0])]);
    const mlp = (x: string, name: string) => {
      const [up, down] = [`${block}.${name}.net.0.proj`, `${block}.${name}.net.2`];
      // The largest activations of the network, some 2e7, go through this one: rounded to 8 bits beside them
      // everything else of their row would be lost, and 16 bits would not hold them. Reference: as `SMALLER`.
      const isLargest = isLast && name === 'img_mlp';
      const inside = isLargest ? 'float32' : compute;
      const options = { accuracy: isLargest ? 0 : accuracy, compute: inside } as const;
      const hidden = linear(g, tensors, narrow(g, x, inside), up, [4 * dim, dim], { ...options, accuracy }); // [n, 4 * dim]
      const active = g.node('Gelu', [hidden], { approximate: 'tanh' }); // [n, 4 * dim]
      const smaller = isLargest ? active : narrowed(active, SMALLER.hidden);
      return linearToFloat32(g, tensors, smaller, down, [dim, 4 * dim], { ...options, by: SMALLER.hidden }); // [n, dim]
    };

    const intoAttention = (x: string, { scale1, shift1 }: typeof ofImage) =>
      narrow(g, modulated(x, scale1, shift1), compute, SMALLER.attention);
    const imageIn = intoAttention(image, ofImage); // [s, dim]
    const wordsIn = intoAttention(words, ofText); // [t, dim]
    const q = joint(
      normedHeads(project(wordsIn, 'add_q_proj'), `${block}.attn.norm_added_q.weight`), // [1, t, dim]
      normedHeads(project(imageIn, 'to_q'), `${block}.attn.norm_q.weight`), // [1, s, dim]
    ); // [1, t + s, dim]
    const k = joint(
      normedHeads(project(wordsIn, 'add_k_proj'), `${block}.attn.norm_added_k.weight`), // [1, t, dim]
      normedHeads(project(imageIn, 'to_k'), `${block}.attn.norm_k.weight`), // [1, s, dim]
    ); // [1, t + s, dim]
    const v = joint(batched(project(wordsIn, 'add_v_proj')), batched(project(imageIn, 'to_v'))); // [1, t + s, dim]
    const rotated = [rotate(q), rotate(k), v] as const; // [1, t + s, dim] each
    const attended = attention(g, rotated, { heads: numHeads, headDim, kind, compute }); // [1, t + s, dim]
    const flat = g.node('Squeeze', [attended, g.ints([0])]); // [t + s, dim]
    const wordsOut = g.node('Slice', [flat, start, textLength, start]); // [t, dim]
    const imageOut = g.node('Slice', [flat, textLength, rest, start]); // [s, dim]

    image = gated(image, ofImage.gate1, projectOut(imageOut, 'to_out.0')); // [s, dim]
    const imageMlp = mlp(modulated(image, ofImage.scale2, ofImage.shift2), 'img_mlp'); // [s, dim]
    image = gated(image, ofImage.gate2, imageMlp); // [s, dim]
    // Nothing reads the last block's text stream.
    if (isLast) continue;
    words = gated(words, ofText.gate1, projectOut(wordsOut, 'to_add_out')); // [t, dim]
    const wordsMlp = mlp(modulated(words, ofText.scale2, ofText.shift2), 'txt_mlp'); // [t, dim]
    words = gated(words, ofText.gate2, wordsMlp); // [t, dim]
  }
  if (end === numLayers) {
    const [scale, shift] = rowsFrom(numLayers * 2 * ROWS, 2) as [string, string];
    const velocity = dense(modulated(image, scale, shift), 'proj_out', inChannels, dim); // [s, inChannels]
    g.output('velocity', velocity, ['s', inChannels]);
  } else {
    g.output('nextImage', image, ['s', dim]);
    g.output('nextWords', words, ['t', dim]);
  }
  return { graph: g, firstRow, rows: lastRow - firstRow };
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
