/** ONNX Runtime sessions of a checkpoint, and the plain functions that run them. */

import { closeSync } from 'node:fs';
import type { Architecture } from '@qwen-supervisor/model/architecture';
import type { Checkpoint } from '@qwen-supervisor/model/checkpoint';
import { EmbeddingTable } from '@qwen-supervisor/model/embedding-table';
import { buildGraphs, type GraphOptions } from '@qwen-supervisor/model/graphs';
import type { OnnxGraph } from '@qwen-supervisor/model/onnx';
import { openForReading, readAt } from '@qwen-supervisor/model/safetensors';
import { textRotary } from '@qwen-supervisor/model/text-encoder';
import { loadTokenizer, type Tokenizer } from '@qwen-supervisor/model/tokenizer';
import { modulationRows } from '@qwen-supervisor/model/transformer';
import { VAE_SCALE } from '@qwen-supervisor/model/vae';
import { type PlacedGraph, placeWeights, type Stretch, weightBytes } from '@qwen-supervisor/model/weights';
import type { LoadProgress, ModelComponent } from '@qwen-supervisor/protocol/status';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { openModulation } from './modulation.js';
import { fromRuntime } from './runtime-error.js';
import { TextStates } from './text-states.js';

/** Bytes that are read at once ahead of a session. */
const READ_BYTES = 8 << 20;

export interface Sessions {
  architecture: Architecture;
  tokenizer: Tokenizer;
  textStates: TextStates;
  /** Token ids → states [ids.length, hidden], after the final norm. */
  encodeText(ids: readonly number[]): Promise<Float32Array>;
  /** Timesteps in [0, 1] → modulation [timesteps.length, rows * dim]. */
  modulation(timesteps: Float32Array): Promise<Float32Array>;
  /** The transformer, in parts that are run one after the other. */
  transformer: Part[];
  /** De-normalised latents [zDim, h, w] → image [3, 8h, 8w] in [-1, 1]. */
  decode(latents: Float32Array, h: number, w: number): Promise<Float32Array>;
  /** Image [3, H, W] in [-1, 1] → latent mean [zDim, H/8, W/8], not normalised. */
  encode(image: Float32Array, height: number, width: number): Promise<Float32Array>;
  release(): Promise<void>;
}

/** A run of the transformer's blocks, and which rows of the modulation are theirs. */
export interface Part {
  session: InferenceSession;
  firstRow: number;
  rows: number;
}

/**
 * Loads a checkpoint, to compute with so many `threads`; `report` hears of every component and of the bytes that are
 * done.
 * @throws CodedError MODEL_*
 */
export async function loadSessions(
  checkpoint: Checkpoint,
  cacheFolder: string,
  threads: number,
  report: (progress: LoadProgress) => void,
  options: GraphOptions = {},
): Promise<Sessions> {
  const { architecture, folder } = checkpoint;
  const graphs = buildGraphs(checkpoint, options);
  const transformerGraphs = graphs.transformer.map(({ graph }) => graph);
  const withWeights = [graphs.textEncoder, ...transformerGraphs, graphs.decoder, graphs.encoder];
  const bytesTotal = withWeights.reduce((sum, graph) => sum + weightBytes(graph), 0);
  let bytesBefore = 0;
  const open = async (component: ModelComponent, graph: OnnxGraph) => {
    const tell = (bytes: number) => report({ component, bytesDone: bytesBefore + bytes, bytesTotal });
    tell(0);
    // Half of a component's bytes count when its weights lie ready, the other half when the session has taken them in.
    const placed = placeWeights(graph, cacheFolder, (done) => tell(Math.floor(done / 2)));
    // In one go from front to back: pages that the session asks for one by one come many times slower from a disk.
    readAhead(placed.stretches, (done) => tell(Math.floor(Math.min(placed.bytes, done) / 2)));
    tell(Math.floor(placed.bytes / 2));
    const session = await createSession(graph.name, placed, threads);
    bytesBefore += placed.bytes;
    tell(0);
    return session;
  };

  report({ component: 'tokenizer', bytesDone: 0, bytesTotal });
  const tokenizer = loadTokenizer(folder);
  const { hiddenSize, headDim } = architecture.textEncoder;
  const embeddings = new EmbeddingTable(graphs.embeddings);
  const modulation = await openModulation(architecture.transformer.dim, graphs.modulation);
  const textEncoder = await open('text_encoder', graphs.textEncoder);
  const transformer: Part[] = [];
  for (const { graph, firstRow, rows } of graphs.transformer)
    transformer.push({ session: await open('transformer', graph), firstRow, rows });
  const decoder = await open('vae', graphs.decoder);
  const encoder = await open('vae', graphs.encoder);

  return {
    architecture,
    tokenizer,
    textStates: new TextStates(),
    transformer,
    async encodeText(ids) {
      const n = ids.length;
      const { cos, sin } = textRotary(architecture.textEncoder, n);
      return runOne(textEncoder, 'states', {
        embeddings: new Tensor('float32', embeddings.rows(ids), [1, n, hiddenSize]),
        cos: new Tensor('float32', cos, [1, n, headDim / 2]),
        sin: new Tensor('float32', sin, [1, n, headDim / 2]),
      });
    },
    modulation: (timesteps) => modulation.of(timesteps),
    decode: (latents, h, w) =>
      runOne(decoder, 'image', { latents: new Tensor('float32', latents, [1, architecture.vae.zDim, h, w]) }),
    encode: (image, height, width) =>
      runOne(encoder, 'mean', {
        image: new Tensor('float32', image, [1, architecture.vae.inputChannels, height, width]),
      }),
    async release() {
      const parts = transformer.map(({ session }) => session);
      for (const session of [textEncoder, ...parts, decoder, encoder]) await session.release();
      await modulation.release();
      embeddings.close();
    },
  };
}

/** Floats of one timestep's modulation. */
export function modulationLength({ transformer }: Architecture): number {
  return modulationRows(transformer) * transformer.dim;
}

/** Latent sides of a picture of `width` by `height` pixels. */
export function latentSize(width: number, height: number): { h: number; w: number } {
  return { h: height / VAE_SCALE, w: width / VAE_SCALE };
}

async function createSession(name: string, placed: PlacedGraph, threads: number): Promise<InferenceSession> {
  try {
    return await InferenceSession.create(placed.model, {
      executionProviders: ['cpu'],
      // Left to itself it takes every core of the machine, whatever this process may use.
      intraOpNumThreads: threads,
      extra: { session: { model_external_initializers_file_folder_path: placed.folder } },
    });
  } catch (cause) {
    throw fromRuntime(cause, 'MODEL_LOAD_FAILED', name);
  }
}

/** Fills the page cache. @throws CodedError MODEL_TRUNCATED */
function readAhead(stretches: Stretch[], onProgress: (bytesDone: number) => void): void {
  let done = 0;
  for (const { file, from, to } of stretches) {
    const { fd } = openForReading(file);
    try {
      for (let at = from; at < to; at += READ_BYTES) {
        const length = Math.min(READ_BYTES, to - at);
        readAt(fd, file, at, length);
        done += length;
        onProgress(done);
      }
    } finally {
      closeSync(fd);
    }
  }
}

async function runOne(session: InferenceSession, output: string, feeds: Record<string, Tensor>): Promise<Float32Array> {
  const results = await session.run(feeds);
  return (results[output] as Tensor).data as Float32Array;
}
