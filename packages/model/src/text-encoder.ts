/**
 * The Qwen2.5 language model of `Qwen2_5_VLForConditionalGeneration`, text path only, as an ONNX graph.
 *
 * Reference: transformers `modeling_qwen2_5_vl.py`. For text the three rows of M-RoPE positions are equal, which is
 * plain rotary embedding over positions 0, 1, 2, …
 */
import type { TextEncoderConfig } from './architecture.js';
import type { Tensors } from './checkpoint.js';
import { type Accuracy, linear, rmsNorm, silu } from './layers.js';
import { MICROSOFT, OnnxGraph } from './onnx.js';

/**
 * Inputs `embeddings` [1, n, hidden], `cos` and `sin` [1, n, headDim/2]; output `states` [n, hidden], after the final
 * norm. The embedding table stays outside: its rows are read from the file as they are needed.
 */
export function buildTextEncoder(config: TextEncoderConfig, tensors: Tensors, accuracy: Accuracy): OnnxGraph {
  const { hiddenSize: hidden, headDim, numHeads, numKeyValueHeads, intermediateSize } = config;
  const g = new OnnxGraph('text_encoder');
  const dense = (x: string, name: string, rows: number, columns: number, bias: boolean) =>
    linear(g, tensors, x, name, [rows, columns], { bias, accuracy });
  const norm = (x: string, name: string) => rmsNorm(g, tensors, x, name, hidden, config.rmsNormEps);
  const batched = (x: string) => g.node('Unsqueeze', [x, g.ints([0])]);

  const embeddings = g.input('embeddings', [1, 'n', hidden]);
  const cos = g.input('cos', [1, 'n', headDim / 2]);
  const sin = g.input('sin', [1, 'n', headDim / 2]);
  const rotate = (x: string, heads: number) =>
    g.node('RotaryEmbedding', [batched(x), cos, sin], { num_heads: heads, interleaved: 0 });

  /** [1, n, numKeyValueHeads * headDim] → the same with the heads that several queries share repeated for each. */
  const perHead = (x: string) => {
    if (numHeads === numKeyValueHeads) return x;
    const heads = g.node('Reshape', [x, g.ints([-1, numKeyValueHeads, 1, headDim])]); // [n, kv, 1, headDim]
    const repeated = g.node('Tile', [heads, g.ints([1, 1, numHeads / numKeyValueHeads, 1])]);
    return g.node('Reshape', [repeated, g.ints([1, -1, numHeads * headDim])]);
  };

  let x = g.node('Squeeze', [embeddings, g.ints([0])]);
  for (let i = 0; i < config.numLayers; i++) {
    const layer = `layers.${i}`;
    const h = norm(x, `${layer}.input_layernorm.weight`);
    const q = dense(h, `${layer}.self_attn.q_proj`, numHeads * headDim, hidden, true);
    const k = dense(h, `${layer}.self_attn.k_proj`, numKeyValueHeads * headDim, hidden, true);
    const v = dense(h, `${layer}.self_attn.v_proj`, numKeyValueHeads * headDim, hidden, true);
    const attention = g.node(
      'MultiHeadAttention',
      [rotate(q, numHeads), perHead(rotate(k, numKeyValueHeads)), perHead(batched(v))],
      { num_heads: numHeads, unidirectional: 1 },
      MICROSOFT,
    ); // [1, n, numHeads * headDim]
    const out = g.node('Squeeze', [attention, g.ints([0])]);
    x = g.node('Add', [x, dense(out, `${layer}.self_attn.o_proj`, hidden, numHeads * headDim, false)]);

    const m = norm(x, `${layer}.post_attention_layernorm.weight`);
    const gate = dense(m, `${layer}.mlp.gate_proj`, intermediateSize, hidden, false);
    const up = dense(m, `${layer}.mlp.up_proj`, intermediateSize, hidden, false);
    const gated = g.node('Mul', [silu(g, gate), up]);
    const down = dense(gated, `${layer}.mlp.down_proj`, hidden, intermediateSize, false);
    x = g.node('Add', [x, down]);
  }
  g.output('states', norm(x, 'norm.weight'), ['n', hidden]);
  return g;
}

/** Rotary tables of positions 0 to n-1, [n, headDim/2] each, in float32 as the reference computes them. */
export function textRotary(config: TextEncoderConfig, n: number): { cos: Float32Array; sin: Float32Array } {
  const half = config.headDim / 2;
  const cos = new Float32Array(n * half);
  const sin = new Float32Array(n * half);
  for (let i = 0; i < half; i++) {
    const frequency = Math.fround(1 / Math.fround(config.ropeTheta ** Math.fround((2 * i) / config.headDim)));
    for (let position = 0; position < n; position++) {
      const angle = Math.fround(position * frequency);
      cos[position * half + i] = Math.cos(angle);
      sin[position * half + i] = Math.sin(angle);
    }
  }
  return { cos, sin };
}
