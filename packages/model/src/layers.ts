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
