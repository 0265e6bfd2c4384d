/** How a model is run within a machine's memory. Pure. */
import { accuracyFor, type ModelPlan } from '@qwen-supervisor/protocol/model-plan';
import type { Accuracy, AttentionKind, Compute } from '../layers.js';
import { cardWeightMemory, type ModelCosts, STAGES, type Stage, weightMemory } from './costs.js';

/** The processes beside the weights: Node and ONNX Runtime, tokenizer and latents; supervisor and API. */
const BESIDE_BYTES = 400e6;
/** On a graphics card: its driver's context and compiled kernels. Assumed; no card was at hand. */
const CARD_BESIDE_BYTES = 600e6;
/** Of the memory that is there; the rest is for whatever else the machine does. */
const SHARE = 0.92;
/** Of a choice that outlives the moment: with less in hand a browser that is opened would end it. */
const SHARE_FOR_LONG = 0.7;
/** A picture below this size is none of Qwen-Image: 256 x 256. */
const PIXELS_MIN = 256 * 256;
const PIXELS_MAX = 4096 * 4096;
/** Decoded in one run through Vulkan, which binds no more than 2 GB at once: the scores of 1.5 million pixels. */
const WEBGPU_WHOLE_PIXELS_MAX = 2 ** 20;
/** Side of a tile, pixels. Reference: diffusers `AutoencoderKLQwenImage.tile_sample_min_height`. */
export const TILE_SIDE = 256;

/** Whether all parts of the model are in memory at once, or one after the other as a picture needs them. */
type Residency = 'resident' | 'stages';

/** The faster way to multiply first. */
const ACCURACIES = [4, 0] as const;

/** The memory that a model may take, bytes. */
export interface Room {
  machineBytes: number;
  /** Of the graphics card that computes the transformer and the VAE; null where the processor computes all. */
  card: {
    kind: 'cuda' | 'webgpu';
    /** Null where it is not known: then it is the machine's, as of a processor's own graphics. */
    bytes: number | null;
    attention: AttentionKind;
    compute: Compute;
  } | null;
}

/**
 * The fastest way in which a picture of `pixels` fits into `room`; else the one with the largest picture. Null where
 * not even a small one fits.
 */
export function planModel(costs: ModelCosts, room: Room, pixels: number): ModelPlan | null {
  const places = placesIn(costs, room);
  const [fast, thrifty] = ACCURACIES.map((accuracy) =>
    largest((size) => places.every((place) => fitsIn(place, accuracy, 'stages', size, 0))),
  ) as [number, number];
  // Pictures that are larger than most wait longer, where they would not be drawn at all.
  const fastPixels = fast >= thrifty ? fast : fast >= pixels ? Math.max(pixels, steady(fast)) : 0;
  const plan = planWith(places, fastPixels, room, pixels);
  return plan.largestPixels >= Math.min(pixels, PIXELS_MIN) ? plan : null;
}

/** A little less, so that what a picture's bytes depend on does not change with every few megabytes. */
function steady(pixels: number): number {
  const quarter = 2 ** Math.floor(Math.log2(pixels)) / 4;
  return Math.floor(pixels / quarter) * quarter;
}

/** The precision for so much memory, for pictures of `pixels`. `costs`: of the model, by precision. */
export function choosePrecision(
  costs: (precision: 'int4' | 'int8') => ModelCosts,
  room: Room,
  pixels: number,
): 'int4' | 'int8' {
  const hasRoom = (place: Place) => memoryIn(place, 4, 'stages', pixels, 0) <= SHARE_FOR_LONG * place.bytes;
  return placesIn(costs('int8'), room).every(hasRoom) ? 'int8' : 'int4';
}

/** Bytes of memory that must be there for a small picture at least, in each place. */
export function leastMemory(costs: ModelCosts, card: Room['card'] = null): { machine: number; card: number | null } {
  const [machine, ofCard] = placesIn(costs, { machineBytes: 0, card }).map(
    (place) => Math.min(...ACCURACIES.map((accuracy) => memoryIn(place, accuracy, 'stages', PIXELS_MIN, 0))) / SHARE,
  );
  return { machine: machine as number, card: ofCard ?? null };
}

/** Bytes of a stage, of its weights and with a picture of `pixels` in it, and whether they are the card's. */
export function stageMemory(
  costs: ModelCosts,
  plan: Pick<ModelPlan, 'fastPixels' | 'tileAbovePixels'>,
  stage: Stage,
  pixels: number,
  card: Room['card'],
): { weightBytes: number; bytes: number; isOfCard: boolean } {
  const places = placesIn(costs, { machineBytes: 0, card });
  const n = places.findIndex(({ stages }) => stages.includes(stage));
  const place = places[n] as Place;
  const accuracy = accuracyFor(plan, stage === 'text_encoder' ? 0 : pixels);
  const weightBytes = Math.ceil(place.weights(stage, accuracy));
  const active = place.activations(stage, decodedAtOnce(stage, pixels, plan.tileAbovePixels), accuracy);
  return { weightBytes, bytes: Math.ceil(weightBytes + active), isOfCard: n > 0 };
}

/** `usualPixels`: of most pictures. */
function planWith(places: [Place, ...Place[]], fastPixels: number, room: Room, usualPixels: number): ModelPlan {
  const accuracyOf = (pixels: number) => accuracyFor({ fastPixels }, pixels);
  const fits = (residency: Residency, pixels: number, tileAbove: number) =>
    places.every((place) => fitsIn(place, accuracyOf(pixels), residency, pixels, tileAbove));
  const largestPixels = largest((pixels) => fits('stages', pixels, 0));
  // What is in memory is loaded for one way to multiply.
  const residentMost = fastPixels > 0 ? fastPixels : largestPixels;
  const resident = largest((pixels) => pixels <= residentMost && fits('resident', pixels, 0));
  // Loaded for pictures that nearly nobody draws, all parts would only have to make way for the usual one.
  const residentPixels = resident < Math.max(PIXELS_MIN, Math.min(usualPixels, largestPixels)) ? 0 : resident;
  // Loading anew for each picture costs more than tiles do: what is decoded whole must fit beside all parts.
  const [usual, limit] = residentPixels > 0 ? (['resident', resident] as const) : (['stages', largestPixels] as const);
  const wholeMost = room.card?.kind === 'webgpu' ? WEBGPU_WHOLE_PIXELS_MAX : PIXELS_MAX;
  const whole = largest((pixels) => pixels <= Math.min(limit, wholeMost) && fits(usual, pixels, pixels));
  // In whole powers of two: what a picture's bytes depend on must not change with every few megabytes.
  const isNeverTiled = largestPixels <= wholeMost && whole === limit && fits('stages', largestPixels, largestPixels);
  const tileAbovePixels = isNeverTiled ? PIXELS_MAX : whole === 0 ? 0 : 2 ** Math.floor(Math.log2(whole));
  const needed = (place: Place) => {
    const take = (residency: Residency, pixels: number) =>
      memoryIn(place, accuracyOf(pixels), residency, pixels, tileAbovePixels);
    const fast = Math.min(fastPixels, largestPixels);
    return Math.ceil(
      Math.max(
        take('stages', Math.max(PIXELS_MIN, largestPixels)),
        fast > 0 ? take('stages', fast) : 0,
        residentPixels > 0 ? take('resident', residentPixels) : 0,
        take(usual, Math.min(tileAbovePixels, limit)),
      ),
    );
  };
  const [machine, card] = places;
  return {
    fastPixels,
    residentPixels,
    neededBytes: needed(machine),
    cardBytes: card ? needed(card) : null,
    availableBytes: room.machineBytes,
    largestPixels,
    tileAbovePixels,
  };
}

function fitsIn(place: Place, accuracy: Accuracy, residency: Residency, pixels: number, tileAbove: number): boolean {
  return memoryIn(place, accuracy, residency, pixels, tileAbove) <= SHARE * place.bytes;
}

/** A memory, and the stages that take theirs from it. */
interface Place {
  bytes: number;
  besideBytes: number;
  stages: Stage[];
  weights(stage: Stage, accuracy: Accuracy): number;
  activations(stage: Stage, pixels: number, accuracy: Accuracy): number;
  /**
   * Whether a session keeps what its runs have taken: CUDA's allocator gives nothing back, and WebGPU keeps its buffers
   * for the next run.
   */
  keepsActivations: boolean;
}

/** That of the machine first. */
function placesIn(costs: ModelCosts, { machineBytes, card }: Room): [Place, ...Place[]] {
  const ofMachine: Place = {
    bytes: machineBytes,
    besideBytes: BESIDE_BYTES,
    stages: ['text_encoder'],
    weights: (stage, accuracy) => weightMemory(costs.weights[stage], accuracy),
    activations: costs.activations,
    keepsActivations: false,
  };
  if (!card) return [{ ...ofMachine, stages: [...STAGES] }];
  const ofCard: Omit<Place, 'bytes'> = {
    besideBytes: CARD_BESIDE_BYTES,
    stages: ['transformer', 'vae'],
    weights: (stage) => cardWeightMemory(costs.weights[stage], stage === 'transformer' ? card.compute : 'float32'),
    activations(stage, pixels, accuracy) {
      const active = costs.activations(stage, pixels, accuracy);
      const isDecomposed = card.attention === 'decomposed';
      // CUDA's fused operator takes heads of any width.
      const isOfVae = stage === 'vae';
      const hasScores = isDecomposed || (isOfVae && card.kind === 'webgpu');
      const scores = !hasScores ? 0 : isOfVae ? costs.decodedScoreBytes(pixels) : costs.scoreBytes(pixels);
      // Through Vulkan all take from the same; on CUDA each keeps its own, of the VAE encoder and decoder.
      const sessions = card.kind === 'webgpu' ? 1 : isOfVae ? 2 : costs.cudaParts;
      return sessions * (active + scores);
    },
    keepsActivations: true,
  };
  if (card.bytes !== null) return [ofMachine, { ...ofCard, bytes: card.bytes }];
  const at = (stage: Stage) => (ofCard.stages.includes(stage) ? ofCard : ofMachine);
  return [
    {
      bytes: machineBytes,
      besideBytes: BESIDE_BYTES + CARD_BESIDE_BYTES,
      stages: [...STAGES],
      weights: (stage, accuracy) => at(stage).weights(stage, accuracy),
      activations: (stage, pixels, accuracy) => at(stage).activations(stage, pixels, accuracy),
      keepsActivations: ofCard.keepsActivations,
    },
  ];
}

function memoryIn(
  { besideBytes, stages, ...place }: Place,
  accuracy: Accuracy,
  residency: Residency,
  pixels: number,
  tileAbove: number,
): number {
  const weights = stages.map((stage) => place.weights(stage, accuracy));
  const active = stages.map((stage) => place.activations(stage, decodedAtOnce(stage, pixels, tileAbove), accuracy));
  const sum = (bytes: number[]) => bytes.reduce((total, n) => total + n, 0);
  if (residency === 'resident')
    return besideBytes + sum(weights) + (place.keepsActivations ? sum(active) : Math.max(...active));
  return besideBytes + Math.max(...stages.map((_, i) => (weights[i] as number) + (active[i] as number)));
}

/** Pixels that go through a stage in one run. */
function decodedAtOnce(stage: Stage, pixels: number, tileAbove: number): number {
  return stage === 'vae' && pixels > tileAbove ? Math.min(pixels, TILE_SIDE ** 2) : pixels;
}

/** The largest picture, in pixels, that `fits`; 0 for none. What fits is smaller than what does not. */
function largest(fits: (pixels: number) => boolean): number {
  let [low, high] = [0, PIXELS_MAX / 256];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (fits(middle * 256)) low = middle;
    else high = middle - 1;
  }
  return low * 256;
}
