/**
 * Decides where a graph's weights lie for the CPU provider, which computes in float32 or with quantised weights.
 *
 * Both stay where they are and are mapped into memory. Other types, and kernels of which one slice is used, are
 * converted once into a side file in the cache folder: ONNX Runtime would otherwise expand every bf16 weight at
 * each load, with more than four times the file's size in memory.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { syncFolderSync } from '@qwen-supervisor/files/replace-file';
import { writeAll } from '@qwen-supervisor/files/write-all';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { bytesOf, toFloat32 } from './dtype.js';
import type { OnnxGraph, Placement, Weight } from './onnx.js';
import { elementCount, openForReading, readAt, weightDtype } from './safetensors.js';

/** Part of every side file's name: a change of the layout below must change it. */
const LAYOUT_VERSION = 1;
const ALIGNMENT = 64;
const CHUNK_BYTES = 8 << 20;

export interface PlacedGraph {
  /** The serialised model. */
  model: Uint8Array;
  /** The folder that the placements are relative to (`session.model_external_initializers_file_folder_path`). */
  folder: string;
  /** Bytes of weights as they lie on disk for the session. */
  bytes: number;
  /** Where they lie on disk; nowhere if they have just been written, and are in memory still. */
  stretches: Stretch[];
}

/** Bytes `from` to `to` (without it) of a file. */
export interface Stretch {
  file: string;
  from: number;
  to: number;
}

/**
 * Places the weights of `graph` and serialises it. `onProgress` is told the bytes of weights that are prepared so far.
 * @throws CodedError MODEL_TRUNCATED, MODEL_INVALID, MODEL_LOAD_FAILED (the side file cannot be written)
 */
export function placeWeights(
  graph: OnnxGraph,
  cacheFolder: string,
  onProgress: (bytesDone: number) => void,
): PlacedGraph {
  const { name } = graph;
  const bytes = weightBytes(graph);
  const inPlace = placeInFiles(graph.weights);
  if (inPlace) return placed(graph, inPlace.placements, inPlace.folder, bytes);
  const file = `${name}-${layoutFingerprint(graph.weights)}.f32`;
  const { placements, size } = layOut(graph.weights, file);
  const isThere = existsSync(join(cacheFolder, file));
  if (!isThere) writeSideFile(graph.weights, placements, size, cacheFolder, file, name, onProgress);
  const graphPlaced = placed(graph, placements, cacheFolder, bytes);
  return isThere ? graphPlaced : { ...graphPlaced, stretches: [] };
}

function placed(graph: OnnxGraph, placements: Map<string, Placement>, folder: string, bytes: number): PlacedGraph {
  const stretches = new Map<string, Stretch>();
  for (const { location, offset, length } of placements.values()) {
    const { from, to } = stretches.get(location) ?? { from: offset, to: offset };
    stretches.set(location, {
      file: join(folder, location),
      from: Math.min(from, offset),
      to: Math.max(to, offset + length),
    });
  }
  return { model: graph.encode(placements), folder, bytes, stretches: [...stretches.values()] };
}

/** Bytes of all weights of the graph, as the session has them. */
export function weightBytes(graph: OnnxGraph): number {
  return graph.weights.reduce((sum, weight) => sum + lengthOf(weight), 0);
}

function lengthOf({ type, dims }: Weight): number {
  return (type === 'uint8' ? 1 : 4) * elementCount(dims);
}

/** The files themselves, if all can be used as they are and, symbolic links followed, lie in one folder. */
function placeInFiles(weights: Weight[]): { placements: Map<string, Placement>; folder: string } | null {
  if (weights.some(({ tensor, lastTap }) => (tensor.dtype !== 'F32' && tensor.dtype !== 'U8') || lastTap)) return null;
  const paths = new Map(
    [...new Set(weights.map(({ tensor }) => tensor.file))].map((file) => [file, realpathSync(file)]),
  );
  const folders = new Set([...paths.values()].map((path) => dirname(path)));
  const [folder] = folders;
  if (folders.size !== 1 || folder === undefined) return null;
  const placements = weights.map(({ name, tensor }): [string, Placement] => {
    const location = basename(paths.get(tensor.file) as string);
    return [name, { location, offset: tensor.offset, length: tensor.length }];
  });
  return { placements: new Map(placements), folder };
}

function layOut(weights: Weight[], location: string): { placements: Map<string, Placement>; size: number } {
  const placements = new Map<string, Placement>();
  let size = 0;
  for (const weight of weights) {
    const offset = Math.ceil(size / ALIGNMENT) * ALIGNMENT;
    const length = lengthOf(weight);
    placements.set(weight.name, { location, offset, length });
    size = offset + length;
  }
  return { placements, size };
}

/** Changes with the files (name, size, time of change) and with what is taken out of them. */
function layoutFingerprint(weights: Weight[]): string {
  const hash = createHash('sha256').update(`layout ${LAYOUT_VERSION}`);
  const stamps = new Map<string, string>();
  for (const { tensor, lastTap } of weights) {
    let stamp = stamps.get(tensor.file);
    if (stamp === undefined) {
      const { size, mtimeMs } = statSync(tensor.file);
      // Numbers of inodes, and paths, are others after every mount on some file systems.
      stamp = `${basename(tensor.file)} ${size} ${mtimeMs}`;
      stamps.set(tensor.file, stamp);
    }
    hash.update(`\n${stamp} ${tensor.name} ${tensor.dtype} ${tensor.shape} ${tensor.offset} ${lastTap}`);
  }
  return hash.digest('hex').slice(0, 32);
}

function writeSideFile(
  weights: Weight[],
  placements: Map<string, Placement>,
  size: number,
  folder: string,
  file: string,
  name: string,
  onProgress: (bytesDone: number) => void,
): void {
  const temporary = join(folder, `${file}.${process.pid}.tmp`);
  try {
    mkdirSync(folder, { recursive: true });
    removeAbandoned(folder);
    const out = openSync(temporary, 'w');
    try {
      for (const weight of weights) {
        const { offset } = placements.get(weight.name) as Placement;
        writeWeight(weight, out, offset, (done) => onProgress(offset + done));
      }
      onProgress(size);
      // Without it a power cut could leave a file of the right name and wrong content.
      fsyncSync(out);
    } finally {
      closeSync(out);
    }
    renameSync(temporary, join(folder, file));
    syncFolderSync(folder);
    removeOlder(folder, name, file);
  } catch (cause) {
    rmSync(temporary, { force: true });
    if (cause instanceof CodedError) throw cause;
    throw new CodedError('MODEL_LOAD_FAILED', `cannot prepare weights in ${folder}: ${(cause as Error).message}`, {
      cause,
    });
  }
}

function writeWeight(weight: Weight, out: number, offset: number, onProgress: (done: number) => void): void {
  const { tensor } = weight;
  const dtype = weightDtype(tensor);
  const width = tensor.length / Math.max(1, elementCount(tensor.shape));
  const { fd } = openForReading(tensor.file);
  try {
    if (weight.lastTap) {
      const all = toFloat32(dtype, readAt(fd, tensor.file, tensor.offset, tensor.length));
      writeAll(out, bytesOf(lastTaps(all, tensor.shape)), offset);
      return;
    }
    for (let done = 0; done < tensor.length; done += CHUNK_BYTES) {
      const bytes = readAt(fd, tensor.file, tensor.offset + done, Math.min(CHUNK_BYTES, tensor.length - done));
      writeAll(out, bytesOf(toFloat32(dtype, bytes)), offset + (done / width) * 4);
      onProgress(((done + bytes.length) / width) * 4);
    }
  } finally {
    closeSync(fd);
  }
}

/** [out, in, t, h, w] → [out, in, h, w] at the last t. */
function lastTaps(values: Float32Array, shape: readonly number[]): Float32Array {
  const [to, from, taps, height, width] = shape as [number, number, number, number, number];
  const plane = height * width;
  const out = new Float32Array(to * from * plane);
  for (let kernel = 0; kernel < to * from; kernel++) {
    const start = (kernel * taps + taps - 1) * plane;
    out.set(values.subarray(start, start + plane), kernel * plane);
  }
  return out;
}

/** What conversions that were killed left behind. The name ends with the number of the process that wrote it. */
function removeAbandoned(folder: string): void {
  for (const file of readdirSync(folder)) {
    const pid = /\.(\d+)\.tmp$/.exec(file)?.[1];
    if (pid !== undefined && !isRunning(Number(pid))) rmSync(join(folder, file), { force: true });
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}

/** Side files of earlier versions of the same checkpoint; a session that still maps one keeps its data. */
function removeOlder(folder: string, name: string, current: string): void {
  for (const file of readdirSync(folder)) {
    // Earlier versions had a graph for the modulation.
    const isOld = file.startsWith(`${name}-`) || file.startsWith('modulation-');
    if (isOld && file.endsWith('.f32') && file !== current) rmSync(join(folder, file), { force: true });
  }
}
