/** ONNX Runtime sessions of a checkpoint, and the plain functions that run them. */

import { createHash } from 'node:crypto';
import { basename, join } from 'node:path';
import type { Architecture } from '@qwen-supervisor/model/architecture';
import type { Checkpoint } from '@qwen-supervisor/model/checkpoint';
import { EmbeddingTable } from '@qwen-supervisor/model/embedding-table';
import { buildGraphs } from '@qwen-supervisor/model/graphs';
import type { OnnxGraph } from '@qwen-supervisor/model/onnx';
import { textRotary } from '@qwen-supervisor/model/text-encoder';
import { loadTokenizer, type Tokenizer } from '@qwen-supervisor/model/tokenizer';
import { modulationRows, TIME_CHANNELS, timeEmbedding } from '@qwen-supervisor/model/transformer';
import { VAE_SCALE } from '@qwen-supervisor/model/vae';
import { type PlacedGraph, placeWeights, weightBytes } from '@qwen-supervisor/model/weights';
import type { LoadProgress, ModelComponent } from '@qwen-supervisor/protocol/status';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { fromRuntime } from './runtime-error.js';
import { TextStates } from './text-states.js';

export interface Sessions {
  architecture: Architecture;
  tokenizer: Tokenizer;
  textStates: TextStates;
  /** Token ids → states [ids.length, hidden], after the final norm. */
  encodeText(ids: readonly number[]): Promise<Float32Array>;
  /** Timesteps in [0, 1] → modulation [timesteps.length, rows * dim]. */
  modulation(timesteps: Float32Array): Promise<Float32Array>;
  transformer: InferenceSession;
  /** De-normalised latents [zDim, h, w] → image [3, 8h, 8w] in [-1, 1]. */
  decode(latents: Float32Array, h: number, w: number): Promise<Float32Array>;
  /** Image [3, H, W] in [-1, 1] → latent mean [zDim, H/8, W/8], not normalised. */
  encode(image: Float32Array, height: number, width: number): Promise<Float32Array>;
  release(): Promise<void>;
}

/**
 * Loads a checkpoint, to compute with so many `threads`; `report` hears of every component and of the bytes that are
 * done.
 * @throws CodedError MODEL_*
 */
export async function loadSessions(
  checkpoint: Checkpoint,
  cacheRoot: string,
  threads: number,
  report: (progress: LoadProgress) => void,
): Promise<Sessions> {
  const { architecture, folder } = checkpoint;
  const graphs = buildGraphs(checkpoint);
  const { embeddings: table, ...graphsWithWeights } = graphs;
  const bytesTotal = Object.values(graphsWithWeights).reduce((sum, graph) => sum + weightBytes(graph), 0);
  const cacheFolder = join(
    cacheRoot,
    `${basename(folder)}-${createHash('sha256').update(folder).digest('hex').slice(0, 12)}`,
  );
  let bytesBefore = 0;
  const open = async (component: ModelComponent, name: string, graph: OnnxGraph) => {
    const tell = (bytes: number) => report({ component, bytesDone: bytesBefore + bytes, bytesTotal });
    tell(0);
    // Half of a component's bytes count when its weights lie ready, the other half when the session has taken them in.
    const placed = placeWeights(graph, name, cacheFolder, (done) => tell(Math.floor(done / 2)));
    tell(Math.floor(placed.bytes / 2));
    const session = await createSession(name, placed, threads);
    bytesBefore += placed.bytes;
    tell(0);
    return session;
  };

  report({ component: 'tokenizer', bytesDone: 0, bytesTotal });
  const tokenizer = loadTokenizer(folder);
  const { hiddenSize, headDim } = architecture.textEncoder;
  const embeddings = new EmbeddingTable(table);
  const textEncoder = await open('text_encoder', 'text_encoder', graphs.textEncoder);
  const modulation = await open('transformer', 'modulation', graphs.modulation);
  const transformer = await open('transformer', 'transformer', graphs.transformer);
  const decoder = await open('vae', 'vae_decoder', graphs.decoder);
  const encoder = await open('vae', 'vae_encoder', graphs.encoder);

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
    modulation: (timesteps) =>
      runOne(modulation, 'modulation', {
        time: new Tensor('float32', timeEmbedding(timesteps), [timesteps.length, TIME_CHANNELS]),
      }),
    decode: (latents, h, w) =>
      runOne(decoder, 'image', { latents: new Tensor('float32', latents, [1, architecture.vae.zDim, h, w]) }),
    encode: (image, height, width) =>
      runOne(encoder, 'mean', {
        image: new Tensor('float32', image, [1, architecture.vae.inputChannels, height, width]),
      }),
    async release() {
      for (const session of [textEncoder, modulation, transformer, decoder, encoder]) await session.release();
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

async function runOne(session: InferenceSession, output: string, feeds: Record<string, Tensor>): Promise<Float32Array> {
  const results = await session.run(feeds);
  return (results[output] as Tensor).data as Float32Array;
}
