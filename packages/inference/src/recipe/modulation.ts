/**
 * The modulation of timesteps: linear layers of the timestep alone, a third of the transformer's weights. They are
 * read from their own files and computed piece by piece, so that a few megabytes of them are in memory at a time; what
 * comes out is kept on disk, for the timesteps of most jobs are the same.
 *
 * One thread computes, at least two rows: then a row does not depend on which others are computed with it.
 */
import { closeSync } from 'node:fs';
import { DTYPE_BYTES, toFloat32 } from '@qwen-supervisor/model/dtype';
import { OnnxGraph } from '@qwen-supervisor/model/onnx';
import { addLora, readMatrices } from '@qwen-supervisor/model/prepare/lora';
import { openForReading, readAt, readFloat32, weightDtype } from '@qwen-supervisor/model/safetensors';
import { type LinearLayer, type ModulationLayers, timeEmbedding } from '@qwen-supervisor/model/transformer';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import type { FloatCache } from './float-cache.js';

/** Weights of a layer that are in memory at once. */
const PIECE = 4 << 20;
/** A single row would be multiplied by another kernel, which rounds otherwise. */
const ROWS_MIN = 2;

/** Bytes of modulation that are in memory rather than on disk. */
const HELD_BYTES_MAX = 64 << 20;
/** Bytes that are computed in one pass over the weights. */
const PASS_BYTES_MAX = 512 << 20;

export interface Modulation {
  /**
   * Tells which timesteps, in [0, 1], a job will ask for, and computes what is not known yet: all in one pass, or as
   * many as fit into one. False where `isCancelled` said so between two layers.
   */
  prepare(timesteps: Float32Array, isCancelled: () => boolean): Promise<boolean>;
  /** [rows * dim] of one timestep; null if cancelled while it was computed. */
  of(timestep: number, isCancelled?: () => boolean): Promise<Float32Array | null>;
  release(): Promise<void>;
}

/**
 * `identity`: everything that the modulation depends on beside the timestep; `onWork` hears of every layer that is
 * done.
 */
export async function openModulation(
  dim: number,
  { embed, layers }: ModulationLayers,
  { cache, identity, onWork }: { cache: FloatCache; identity: string; onWork: () => void },
): Promise<Modulation> {
  const g = new OnnxGraph('linear');
  const inputs = [g.input('x', ['n', 'columns']), g.input('weight', ['rows', 'columns']), g.input('bias', ['rows'])];
  g.output('y', g.node('Gemm', inputs, { transB: 1 }), ['n', 'rows']);
  const session = await InferenceSession.create(g.encode(new Map()), { intraOpNumThreads: 1 });

  /** `x` [n, columns] → [n, rows], a piece of the rows after the other given to `take`. */
  async function linear(
    { weight, bias, lora }: LinearLayer,
    x: Float32Array,
    take: (values: Float32Array, firstRow: number, count: number) => void,
  ): Promise<void> {
    const [rows, columns] = weight.shape as [number, number];
    const n = x.length / columns;
    const biases = readFloat32(bias);
    const addition = lora && readMatrices(lora);
    const atOnce = Math.max(1, Math.floor(PIECE / columns));
    const dtype = weightDtype(weight);
    const width = (DTYPE_BYTES[dtype] as number) * columns;
    const { fd } = openForReading(weight.file);
    try {
      for (let row = 0; row < rows; row += atOnce) {
        const count = Math.min(atOnce, rows - row);
        const piece = toFloat32(dtype, readAt(fd, weight.file, weight.offset + row * width, count * width));
        if (addition) addLora(piece, row, columns, addition);
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

  /** [n, rows * dim] of n timesteps; null if cancelled. */
  async function compute(timesteps: Float32Array, isCancelled: () => boolean): Promise<Float32Array | null> {
    const n = Math.max(ROWS_MIN, timesteps.length);
    const padded = Float32Array.from({ length: n }, (_, i) => timesteps[i] ?? 0);
    const hidden = await active(embed[0], timeEmbedding(padded), n);
    const temb = await active(embed[1], hidden, n);
    const out = new Float32Array(n * width);
    let start = 0;
    for (const layer of layers) {
      if (isCancelled()) return null;
      await linear(layer, temb, (values, first, count) => copyColumns(values, count, out, width, start + first));
      for (const scale of layer.scales) {
        for (let i = 0; i < n; i++) {
          const at = i * width + start + scale * dim;
          for (let c = at; c < at + dim; c++) out[c] = (out[c] as number) + 1;
        }
      }
      start += layer.weight.shape[0] as number;
      onWork();
    }
    return out;
  }

  const width = layers.reduce((sum, { weight }) => sum + (weight.shape[0] as number), 0);
  const atOnce = Math.max(1, Math.floor(PASS_BYTES_MAX / (4 * width)));
  const keyOf = (timestep: number) => `${identity}\n${timestep}`;
  /** Rows in memory; those that are also on disk only where all of them are small. */
  let held = new Map<number, Float32Array>();
  /** Timesteps of the job, in the order in which they are asked for. */
  let coming: number[] = [];

  /**
   * Makes sure of the next timesteps, as many as one pass computes: with more the first would have to go from the disk
   * again before they are read.
   */
  async function makeSure(isCancelled: () => boolean): Promise<boolean> {
    const next = coming.slice(0, atOnce);
    const missing = next.filter((timestep) => !held.has(timestep) && !cache.has(keyOf(timestep)));
    held = new Map([...held].filter(([timestep]) => next.includes(timestep)));
    if (missing.length === 0) return true;
    const rows = await compute(Float32Array.from(missing), isCancelled);
    if (!rows) return false;
    for (const [i, timestep] of missing.entries()) {
      const row = rows.slice(i * width, (i + 1) * width);
      if (!cache.put(keyOf(timestep), row) || 4 * width * next.length <= HELD_BYTES_MAX) held.set(timestep, row);
    }
    return true;
  }

  return {
    prepare(timesteps, isCancelled) {
      coming = [...new Set(timesteps)];
      return makeSure(isCancelled);
    },
    async of(timestep, isCancelled = () => false) {
      const known = () => held.get(timestep) ?? cache.get(keyOf(timestep));
      const row = known();
      if (row) return row;
      // The next pass; or its file is gone, or it was not prepared.
      const place = coming.indexOf(timestep);
      coming = place < 0 ? [timestep] : coming.slice(place);
      if (!(await makeSure(isCancelled))) return null;
      return known() ?? (await compute(Float32Array.of(timestep), isCancelled))?.slice(0, width) ?? null;
    },
    release: () => session.release(),
  };
}

/** `from` [n, count] to the columns `first` on of `to` [n, width]. */
function copyColumns(from: Float32Array, count: number, to: Float32Array, width: number, first: number): void {
  for (let i = 0; i * count < from.length; i++) to.set(from.subarray(i * count, (i + 1) * count), i * width + first);
}
