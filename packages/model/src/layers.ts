/** What the networks are made of: each adds its nodes to a graph and gives the name of its output. */
import type { Tensors } from './checkpoint.js';
import { CAST_TO, MICROSOFT, type OnnxGraph } from './onnx.js';
import { BLOCK } from './prepare/quantise.js';

/**
 * How the CPU multiplies with quantised weights: 4 rounds the activations to 8 bits for each product (fast where the
 * processor has instructions for it, and the weights are packed into private memory), 0 computes in float32.
 * Reference: ONNX Runtime, `com.microsoft.MatMulNBits`, accuracy_level.
 */
export type Accuracy = 0 | 4;

/**
 * What products, norms and attention within a block are computed in. Between them and from block to block the streams
 * are float32 whatever this is: they grow to some 2e7, which float16 has no numbers for.
 */
export type Compute = keyof typeof CAST_TO;

/** Float32 `x` divided by `by`, for products in `compute`. */
export function narrow(g: OnnxGraph, x: string, compute: Compute, by = 1): string {
  if (compute === 'float32') return x;
  return cast(g, by === 1 ? x : g.node('Mul', [x, g.scalar(1 / by)]), compute);
}

/** A constant, or what is computed of constants alone, is cast once, when the session is made. */
function cast(g: OnnxGraph, x: string, to: Compute): string {
  return g.node('Cast', [x], { to: CAST_TO[to] });
}

/**
 * `x` [n, columns] → [n, rows]: `name.weight` [rows, columns], quantised where its codes are there, and, unless there
 * is none, `name.bias` [rows]. `x` and the result are of the type `compute`; where `x` is a value divided by `by`, so
 * is the result.
 */
export function linear(
  g: OnnxGraph,
  tensors: Tensors,
  x: string,
  name: string,
  [rows, columns]: readonly [number, number],
  {
    bias = true,
    accuracy = 4,
    compute = 'float32',
    by = 1,
  }: { bias?: boolean; accuracy?: Accuracy; compute?: Compute; by?: number } = {},
): string {
  const offset = bias ? [narrow(g, g.weight(tensors.get(`${name}.bias`, [rows])), compute, by)] : [];
  const quantised = tensors.quantised(`${name}.weight`, [rows, columns]);
  if (!quantised) {
    const weight = narrow(g, g.weight(tensors.get(`${name}.weight`, [rows, columns])), compute);
    return g.node('Gemm', [x, weight, ...offset], { transB: 1 });
  }
  const { bits, codes, scales } = quantised;
  const attributes = { N: rows, K: columns, bits, block_size: BLOCK, accuracy_level: accuracy };
  const inputs = [x, g.weight(codes), narrow(g, g.weight(scales), compute)];
  const product = g.node('MatMulNBits', inputs, attributes, MICROSOFT);
  // Not as the operator's own input: kernels for graphics cards take it apart.
  return bias ? g.node('Add', [product, offset[0] as string]) : product;
}

/**
 * The same of `x` of any type and divided by `by`, with a result in float32 and whole: the bias is added in float32,
 * and what `by` has kept small may be large again.
 */
export function linearToFloat32(
  g: OnnxGraph,
  tensors: Tensors,
  x: string,
  name: string,
  size: readonly [number, number],
  { accuracy, compute, by }: { accuracy: Accuracy; compute: Compute; by: number },
): string {
  if (compute === 'float32') return linear(g, tensors, x, name, size, { accuracy });
  const product = linear(g, tensors, x, name, size, { bias: false, accuracy, compute });
  const whole = g.node('Mul', [cast(g, product, 'float32'), g.scalar(by)]);
  return g.node('Add', [whole, g.weight(tensors.get(`${name}.bias`, [size[0]]))]);
}

/** Root mean square norm over the last axis of `width`, times the tensor `name`; both of the type `compute`. */
export function rmsNorm(
  g: OnnxGraph,
  tensors: Tensors,
  x: string,
  name: string,
  width: number,
  epsilon: number,
  compute: Compute = 'float32',
): string {
  const scale = narrow(g, g.weight(tensors.get(name, [width])), compute);
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

/** Attention of every token to all. `q`, `k` and `v` [1, n, heads * headDim] of the type `compute` → the same. */
export function attention(
  g: OnnxGraph,
  [q, k, v]: readonly [string, string, string],
  {
    heads,
    headDim,
    kind,
    compute = 'float32',
  }: { heads: number; headDim: number; kind: AttentionKind; compute?: Compute },
): string {
  if (kind === 'fused') return g.node('MultiHeadAttention', [q, k, v], { num_heads: heads }, MICROSOFT);
  const scaled = g.node('Mul', [q, narrow(g, g.scalar(1 / Math.sqrt(headDim)), compute)]);
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
