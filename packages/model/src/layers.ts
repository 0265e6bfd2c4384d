/** What the networks are made of: each adds its nodes to a graph and gives the name of its output. */
import type { Tensors } from './checkpoint.js';
import type { OnnxGraph } from './onnx.js';

/** `x` [n, columns] → [n, rows]: `name.weight` [rows, columns] and, unless there is none, `name.bias` [rows]. */
export function linear(
  g: OnnxGraph,
  tensors: Tensors,
  x: string,
  name: string,
  [rows, columns]: readonly [number, number],
  { bias = true } = {},
): string {
  const weights = [g.weight(tensors.get(`${name}.weight`, [rows, columns]))];
  if (bias) weights.push(g.weight(tensors.get(`${name}.bias`, [rows])));
  return g.node('Gemm', [x, ...weights], { transB: 1 });
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
