/** What the networks are made of: each adds its nodes to a graph and gives the name of its output. */
import type { Tensors } from './checkpoint.js';
import { MICROSOFT, type OnnxGraph } from './onnx.js';
import { BLOCK } from './prepare/quantise.js';

/**
 * How the CPU multiplies with quantised weights: 4 rounds the activations to 8 bits for each product (fast where the
 * processor has instructions for it, and the weights are packed into private memory), 0 computes in float32.
 * Reference: ONNX Runtime, `com.microsoft.MatMulNBits`, accuracy_level.
 */
export type Accuracy = 0 | 4;

/**
 * `x` [n, columns] → [n, rows]: `name.weight` [rows, columns], quantised where its codes are there, and, unless there
 * is none, `name.bias` [rows].
 */
export function linear(
  g: OnnxGraph,
  tensors: Tensors,
  x: string,
  name: string,
  [rows, columns]: readonly [number, number],
  { bias = true, accuracy = 4 }: { bias?: boolean; accuracy?: Accuracy } = {},
): string {
  const offset = bias ? [g.weight(tensors.get(`${name}.bias`, [rows]))] : [];
  const quantised = tensors.quantised(`${name}.weight`, [rows, columns]);
  if (!quantised)
    return g.node('Gemm', [x, g.weight(tensors.get(`${name}.weight`, [rows, columns])), ...offset], { transB: 1 });
  const { bits, codes, scales } = quantised;
  const attributes = { N: rows, K: columns, bits, block_size: BLOCK, accuracy_level: accuracy };
  const product = g.node('MatMulNBits', [x, g.weight(codes), g.weight(scales)], attributes, MICROSOFT);
  // Not as the operator's own input: kernels for graphics cards take it apart.
  return bias ? g.node('Add', [product, offset[0] as string]) : product;
}

/** Root mean square norm over the last axis of `width`, times the tensor `name`. */
export function rmsNorm(
  g: OnnxGraph,
  tensors: Tensors,
  x: string,
  name: string,
  width: number,
  epsilon: number,
): string {
  const scale = g.weight(tensors.get(name, [width]));
  return g.node('SimplifiedLayerNormalization', [x, scale], { axis: -1, epsilon: { float: epsilon } });
}

/** x * sigmoid(x). */
export function silu(g: OnnxGraph, x: string): string {
  return g.node('Mul', [x, g.node('Sigmoid', [x])]);
}

/**
 * Whether attention is one operator, or the products and the softmax that it is made of: slower, and right where a
 * device computes the operator wrong.
 */
export type AttentionKind = 'fused' | 'decomposed';

/** Attention of every token to all. `q`, `k` and `v` [1, n, heads * headDim] → the same. */
export function attention(
  g: OnnxGraph,
  [q, k, v]: readonly [string, string, string],
  { heads, headDim, kind }: { heads: number; headDim: number; kind: AttentionKind },
): string {
  if (kind === 'fused') return g.node('MultiHeadAttention', [q, k, v], { num_heads: heads }, MICROSOFT);
  const scaled = g.node('Mul', [q, g.scalar(1 / Math.sqrt(headDim))]);
  // A head at a time: the weights of all would take gigabytes.
  const headsOf = (x: string) => [...Array(heads).keys()].map((n) => headOf(g, x, n * headDim, (n + 1) * headDim));
  const [queries, keys, values] = [headsOf(scaled), headsOf(k), headsOf(v)];
  const each = queries.map((query, n) => {
    const scores = g.node('MatMul', [query, g.node('Transpose', [keys[n] as string], { perm: [0, 2, 1] })]); // [1, n, n]
    return g.node('MatMul', [g.node('Softmax', [scores], { axis: -1 }), values[n] as string]); // [1, n, headDim]
  });
  return joined(g, each);
}

/** [1, n, heads * headDim] → the columns `from` to `to`. */
function headOf(g: OnnxGraph, x: string, from: number, to: number): string {
  return g.node('Slice', [x, g.ints([from]), g.ints([to]), g.ints([2])]);
}

/** One after the other; few at once: a graphics card binds a dozen inputs to a node. */
function joined(g: OnnxGraph, parts: string[]): string {
  if (parts.length === 1) return parts[0] as string;
  const groups = Array.from({ length: Math.ceil(parts.length / JOINED_MAX) }, (_, i) =>
    g.node('Concat', parts.slice(i * JOINED_MAX, (i + 1) * JOINED_MAX), { axis: 2 }),
  );
  return joined(g, groups);
}
const JOINED_MAX = 6;
