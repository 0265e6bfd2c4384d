/**
 * The modulation of timesteps: linear layers of the timestep alone, a third of the transformer's weights. They are
 * read from their own files and computed piece by piece, so that a few megabytes of them are in memory at a time.
 *
 * One thread computes, at least two rows: then a row does not depend on which others are computed with it.
 */
import { closeSync } from 'node:fs';
import { DTYPE_BYTES, toFloat32 } from '@qwen-supervisor/model/dtype';
import { OnnxGraph } from '@qwen-supervisor/model/onnx';
import { openForReading, readAt, readFloat32, weightDtype } from '@qwen-supervisor/model/safetensors';
import { type LinearLayer, type ModulationLayers, timeEmbedding } from '@qwen-supervisor/model/transformer';
import { InferenceSession, Tensor } from 'onnxruntime-node';

/** Weights of a layer that are in memory at once. */
const PIECE = 4 << 20;
/** A single row would be multiplied by another kernel, which rounds otherwise. */
const ROWS_MIN = 2;

export interface Modulation {
  /** Timesteps in [0, 1] → [timesteps.length, rows * dim]. */
  of(timesteps: Float32Array): Promise<Float32Array>;
  release(): Promise<void>;
}

export async function openModulation(dim: number, { embed, layers }: ModulationLayers): Promise<Modulation> {
  const g = new OnnxGraph('linear');
  const inputs = [g.input('x', ['n', 'columns']), g.input('weight', ['rows', 'columns']), g.input('bias', ['rows'])];
  g.output('y', g.node('Gemm', inputs, { transB: 1 }), ['n', 'rows']);
  const session = await InferenceSession.create(g.encode(new Map()), { intraOpNumThreads: 1 });

  /** `x` [n, columns] → [n, rows], a piece of the rows after the other given to `take`. */
  async function linear(
    { weight, bias }: LinearLayer,
    x: Float32Array,
    take: (values: Float32Array, firstRow: number, count: number) => void,
  ): Promise<void> {
    const [rows, columns] = weight.shape as [number, number];
    const n = x.length / columns;
    const biases = readFloat32(bias);
    const atOnce = Math.max(1, Math.floor(PIECE / columns));
    const dtype = weightDtype(weight);
    const width = (DTYPE_BYTES[dtype] as number) * columns;
    const { fd } = openForReading(weight.file);
    try {
      for (let row = 0; row < rows; row += atOnce) {
        const count = Math.min(atOnce, rows - row);
        const piece = toFloat32(dtype, readAt(fd, weight.file, weight.offset + row * width, count * width));
        const { y } = await session.run({
          x: new Tensor('float32', x, [n, columns]),
          weight: new Tensor('float32', piece, [count, columns]),
          bias: new Tensor('float32', biases.slice(row, row + count), [count]),
        });
        take((y as Tensor).data as Float32Array, row, count);
      }
    } finally {
      closeSync(fd);
    }
  }

  async function active(layer: LinearLayer, x: Float32Array, n: number): Promise<Float32Array> {
    const rows = layer.weight.shape[0] as number;
    const out = new Float32Array(n * rows);
    await linear(layer, x, (values, first, count) => copyColumns(values, count, out, rows, first));
    return out.map((value) => value / (1 + Math.exp(-value)));
  }

  return {
    async of(timesteps) {
      const n = Math.max(ROWS_MIN, timesteps.length);
      const padded = Float32Array.from({ length: n }, (_, i) => timesteps[i] ?? 0);
      const hidden = await active(embed[0], timeEmbedding(padded), n);
      const temb = await active(embed[1], hidden, n);
      const width = layers.reduce((sum, { weight }) => sum + (weight.shape[0] as number), 0);
      const out = new Float32Array(n * width);
      let start = 0;
      for (const layer of layers) {
        await linear(layer, temb, (values, first, count) => copyColumns(values, count, out, width, start + first));
        for (const scale of layer.scales) {
          for (let i = 0; i < n; i++) {
            const at = i * width + start + scale * dim;
            for (let c = at; c < at + dim; c++) out[c] = (out[c] as number) + 1;
          }
        }
        start += layer.weight.shape[0] as number;
      }
      return out.slice(0, timesteps.length * width);
    },
    release: () => session.release(),
  };
}

/** `from` [n, count] to the columns `first` on of `to` [n, width]. */
function copyColumns(from: Float32Array, count: number, to: Float32Array, width: number, first: number): void {
  for (let i = 0; i * count < from.length; i++) to.set(from.subarray(i * count, (i + 1) * count), i * width + first);
}
