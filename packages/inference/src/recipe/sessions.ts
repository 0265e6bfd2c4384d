/** ONNX Runtime sessions of a checkpoint, and the plain functions that run them. */

import { join } from 'node:path';
import { RELEASE } from '@qwen-supervisor/ipc/version';
import type { Architecture } from '@qwen-supervisor/model/architecture';
import { type Checkpoint, fingerprint } from '@qwen-supervisor/model/checkpoint';
import { EmbeddingTable } from '@qwen-supervisor/model/embedding-table';
import { buildGraphs, hasCodes } from '@qwen-supervisor/model/graphs';
import type { Compute } from '@qwen-supervisor/model/layers';
import type { OnnxGraph } from '@qwen-supervisor/model/onnx';
import { TILE_SIDE } from '@qwen-supervisor/model/plan/plan';
import { textRotary } from '@qwen-supervisor/model/text-encoder';
import { loadTokenizer, type Tokenizer } from '@qwen-supervisor/model/tokenizer';
import { modulationRows } from '@qwen-supervisor/model/transformer';
import { VAE_SCALE } from '@qwen-supervisor/model/vae';
import { parseDevice } from '@qwen-supervisor/protocol/device';
import { accuracyFor, type ModelPlan } from '@qwen-supervisor/protocol/model-plan';
import type { LoadProgress } from '@qwen-supervisor/protocol/status';
import { env, type InferenceSession, Tensor } from 'onnxruntime-node';
import { processorName } from '../processors.js';
import { abilityOf } from './device.js';
import { FloatCache } from './float-cache.js';
import { type Modulation, openModulation } from './modulation.js';
import { fromRuntime } from './runtime-error.js';
import { bytesOfAll, openStages } from './stages.js';
import { TextStates } from './text-states.js';
import { overTiles } from './tiles.js';

/** Of what is computed once and kept on disk: text states of 30 prompts at least, modulation of 200 timesteps. */
const STATES_BYTES_MAX = 256 << 20;
const MODULATION_BYTES_MAX = 2 ** 31;
/** Pixels that neighbouring tiles share at least. Reference: diffusers `AutoencoderKLQwenImage`, 256 less 192. */
const TILE_OVERLAP = 64;

export interface Sessions {
  architecture: Architecture;
  /** Whatever decides how numbers are rounded in a picture of so many pixels, beside their number. */
  roundingOf(pixels: number): string;
  tokenizer: Tokenizer;
  textStates: TextStates;
  modulation: Modulation;
  /** Tells how many pixels the next picture has. */
  nextPicture(pixels: number): void;
  /** Token ids → states [ids.length, hidden], after the final norm; null if cancelled while the encoder was loaded. */
  encodeText(ids: readonly number[], isCancelled?: () => boolean): Promise<Float32Array | null>;
  /** The transformer, in parts that are run one after the other; null if cancelled while it was loaded. */
  transformer(isCancelled: () => boolean): Promise<Part[] | null>;
  /** De-normalised latents [zDim, h, w] → image [3, 8h, 8w] in [-1, 1]; null if cancelled before, or between tiles. */
  decode(latents: Float32Array, h: number, w: number, isCancelled?: () => boolean): Promise<Float32Array | null>;
  /** Image [3, H, W] in [-1, 1] → latent mean [zDim, H/8, W/8], not normalised; null if cancelled as above. */
  encode(image: Float32Array, height: number, width: number, isCancelled?: () => boolean): Promise<Float32Array | null>;
  release(): Promise<void>;
}

/** A run of the transformer's blocks, and which rows of the modulation are theirs. */
export interface Part {
  session: InferenceSession;
  firstRow: number;
  rows: number;
}

/** How a model is loaded and run. */
export interface LoadOptions {
  /** Where weights are kept that are not used in their own files, and what is computed once. */
  cacheFolder: string;
  /** That compute. */
  threads: number;
  plan: Pick<ModelPlan, 'fastPixels' | 'residentPixels' | 'tileAbovePixels'>;
  device?: string;
  /** What the device was found to compute the transformer in; left out, that is found out now. */
  compute?: Compute;
  blocksPerPart?: number;
  /** Hears of every component and of the bytes that are done, whenever something is loaded. */
  report?: (progress: LoadProgress) => void;
  /** Hears that a computation of several runs gets on. */
  onWork?: () => void;
}

/** Everything in memory, the faster way to multiply, pictures decoded whole. */
export const AMPLE: LoadOptions['plan'] = {
  fastPixels: Number.POSITIVE_INFINITY,
  residentPixels: Number.POSITIVE_INFINITY,
  tileAbovePixels: Number.POSITIVE_INFINITY,
};

/** Loads a checkpoint. @throws CodedError MODEL_* */
export async function loadSessions(
  checkpoint: Checkpoint,
  {
    cacheFolder,
    threads,
    plan,
    device = 'cpu',
    compute: known,
    blocksPerPart,
    report = () => {},
    onWork = () => {},
  }: LoadOptions,
): Promise<Sessions> {
  const { architecture, folder } = checkpoint;
  const { tileAbovePixels } = plan;
  const { attention, compute } = await abilityOf(device, known);
  const accuracy = accuracyFor(plan, 0);
  const options = { blocksPerPart: blocksPerPart ?? partOn(device, checkpoint), attention, compute };
  const graphs = buildGraphs(checkpoint, { accuracy, ...options });
  const byStage = {
    text_encoder: [graphs.textEncoder],
    transformer: graphs.transformer.map(({ graph }) => graph),
    vae: [graphs.decoder, graphs.encoder],
  };
  report({ component: 'tokenizer', bytesDone: 0, bytesTotal: bytesOfAll(byStage) });
  const tokenizer = loadTokenizer(folder);
  const { hiddenSize, headDim } = architecture.textEncoder;
  const embeddings = new EmbeddingTable(graphs.embeddings);
  const model = fingerprint(checkpoint);
  const runtime = `onnxruntime ${env.versions.node}, ${processorName()}`;
  // Another release may compute otherwise; every build would lose what took minutes.
  const identity = `${model} ${RELEASE} ${runtime}`;
  const cache = (name: string, maxBytes: number) => new FloatCache(join(cacheFolder, name), maxBytes);
  const modulation = await openModulation(architecture.transformer.dim, graphs.modulation, {
    cache: cache('modulation', MODULATION_BYTES_MAX),
    identity,
    onWork,
  });
  const textStates = new TextStates(
    cache('text-states', STATES_BYTES_MAX),
    `${identity}, ${threads} threads, accuracy ${accuracy}`,
  );
  const { residentPixels } = plan;
  /** For pictures that are larger than the faster way has memory for. */
  let thrifty: OnnxGraph[] | null = null;
  const transformerFor = (pixels: number) => {
    if (accuracyFor(plan, pixels) === accuracy) return byStage.transformer;
    thrifty ??= buildGraphs(checkpoint, { accuracy: 0, ...options }).transformer.map(({ graph }) => graph);
    return thrifty;
  };
  const stages = await openStages(byStage, {
    transformerFor,
    cacheFolder,
    threads,
    residentPixels,
    device,
    report,
  });

  /** Of the largest picture that goes through the VAE in one run. */
  let wholePixels = tileAbovePixels;

  /** Runs a half of the VAE over [channels, height, width], in tiles where the picture is too large. */
  const runVae = async (
    half: Half,
    values: Float32Array,
    [height, width]: readonly [number, number],
    isCancelled = () => false,
  ): Promise<Float32Array | null> => {
    const session = (await stages.use('vae', isCancelled))?.[half.index];
    if (!session) return null;
    const run = (tile: { values: Float32Array; height: number; width: number }) => {
      const dims = [1, half.channels, tile.height, tile.width];
      const result = runOne(session, half.output, { [half.input]: new Tensor('float32', tile.values, dims) });
      return result.finally(onWork);
    };
    const pixels = height * width * half.side ** 2;
    if (pixels <= wholePixels) {
      const whole = await run({ values, height, width }).catch((error: unknown) => {
        const { code } = fromRuntime(error, 'INFERENCE_FAILED', half.output);
        if (code !== 'DEVICE_MEMORY_EXHAUSTED' || pixels <= TILE_SIDE ** 2) throw error;
        // All steps are drawn, and there was less memory than planned: this picture and the next go in tiles.
        wholePixels = Math.min(wholePixels, pixels - 1);
        return null;
      });
      if (whole) return whole;
    }
    const size = TILE_SIDE / half.side;
    const tiles = { size, overlap: TILE_OVERLAP / half.side, scale: half.scale };
    return overTiles({ values, channels: half.channels, height, width }, tiles, run, isCancelled);
  };
  const decoder: Half = {
    index: 0,
    input: 'latents',
    output: 'image',
    channels: architecture.vae.zDim,
    side: VAE_SCALE,
    scale: VAE_SCALE,
  };
  const encoderHalf: Half = {
    index: 1,
    input: 'image',
    output: 'mean',
    channels: architecture.vae.inputChannels,
    side: 1,
    scale: 1 / VAE_SCALE,
  };

  return {
    architecture,
    roundingOf: (pixels) =>
      `${runtime}, ${threads} threads, accuracy ${accuracyFor(plan, pixels)}, ${attention} attention${compute === 'float32' ? '' : ` in ${compute}`} on ${parseDevice(device).kind}`,
    tokenizer,
    textStates,
    modulation,
    nextPicture: (pixels) => stages.nextPicture(pixels),
    async encodeText(ids, isCancelled) {
      const [session] = (await stages.use('text_encoder', isCancelled)) ?? [];
      if (!session) return null;
      const n = ids.length;
      const { cos, sin } = textRotary(architecture.textEncoder, n);
      const states = await runOne(session, 'states', {
        embeddings: new Tensor('float32', embeddings.rows(ids), [1, n, hiddenSize]),
        cos: new Tensor('float32', cos, [1, n, headDim / 2]),
        sin: new Tensor('float32', sin, [1, n, headDim / 2]),
      });
      onWork();
      return states;
    },
    async transformer(isCancelled) {
      const loaded = await stages.use('transformer', isCancelled);
      if (!loaded) return null;
      return graphs.transformer.map(({ firstRow, rows }, i) => ({
        session: loaded[i] as InferenceSession,
        firstRow,
        rows,
      }));
    },
    decode: (latents, h, w, isCancelled) => runVae(decoder, latents, [h, w], isCancelled),
    encode: (image, height, width, isCancelled) => runVae(encoderHalf, image, [height, width], isCancelled),
    async release() {
      await stages.release();
      await modulation.release();
      embeddings.close();
    },
  };
}

/**
 * Blocks of the transformer to a session: all of them on CUDA, where each session keeps the memory that its runs have
 * taken. Weights that the card does not take as they lie pass through the machine's memory, and do so in parts.
 */
export function partOn(device: string, checkpoint: Checkpoint): number | undefined {
  const isQuantised = () => buildGraphs(checkpoint).transformer.some(({ graph }) => hasCodes(graph));
  return parseDevice(device).kind === 'cuda' && isQuantised()
    ? checkpoint.architecture.transformer.numLayers
    : undefined;
}

/** Encoder or decoder of pictures. */
interface Half {
  index: 0 | 1;
  input: string;
  output: string;
  channels: number;
  /** Pixels of a side of one value of its input. */
  side: number;
  /** Of the output, in sides of the input. */
  scale: number;
}

/** Floats of one timestep's modulation. */
export function modulationLength({ transformer }: Architecture): number {
  return modulationRows(transformer) * transformer.dim;
}

/** Latent sides of a picture of `width` by `height` pixels. */
export function latentSize(width: number, height: number): { h: number; w: number } {
  return { h: height / VAE_SCALE, w: width / VAE_SCALE };
}

async function runOne(session: InferenceSession, output: string, feeds: Record<string, Tensor>): Promise<Float32Array> {
  const results = await session.run(feeds);
  return (results[output] as Tensor).data as Float32Array;
}
