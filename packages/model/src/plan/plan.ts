/** How a model is run within a machine's memory. Pure. */
import type { ModelPlan } from '@qwen-supervisor/protocol/model-plan';
import { type ModelCosts, STAGES, type Stage, weightMemory } from './costs.js';

/** The processes beside the weights: Node and ONNX Runtime, tokenizer and latents; supervisor and API. */
const BESIDE_BYTES = 400e6;
/** Of the memory that is there; the rest is for whatever else the machine does. */
const SHARE = 0.92;
/** Of a choice that outlives the moment: with less in hand a browser that is opened would end it. */
const SHARE_FOR_LONG = 0.7;
/** A picture below this size is none of Qwen-Image: 256 x 256. */
const PIXELS_MIN = 256 * 256;
const PIXELS_MAX = 4096 * 4096;
/** Side of a tile, pixels. Reference: diffusers `AutoencoderKLQwenImage.tile_sample_min_height`. */
export const TILE_SIDE = 256;

/** Whether all parts of the model are in memory at once, or one after the other as a picture needs them. */
type Residency = 'resident' | 'stages';

/** The faster way to multiply first. */
const ACCURACIES = [4, 0] as const;

/**
 * The fastest way in which a picture of `pixels` fits into `availableBytes`; else the one with the largest picture.
 * Null where not even a small one fits.
 */
export function planModel(costs: ModelCosts, availableBytes: number, pixels: number): ModelPlan | null {
  const plans = ACCURACIES.map((accuracy) => planAccuracy(costs, accuracy, availableBytes));
  const [largest] = plans.toSorted((a, b) => b.largestPixels - a.largestPixels);
  const plan = plans.find(({ largestPixels }) => largestPixels >= pixels) ?? largest;
  return plan && plan.largestPixels >= Math.min(pixels, PIXELS_MIN) ? plan : null;
}

/**
 * The precision for a machine with so much memory, for pictures of `pixels`. `costs`: of the model, by precision.
 */
export function choosePrecision(
  costs: (precision: 'int4' | 'int8') => ModelCosts,
  memoryBytes: number,
  pixels: number,
): 'int4' | 'int8' {
  return fitsForLong(costs('int8'), memoryBytes, pixels) ? 'int8' : 'int4';
}

function fitsForLong(costs: ModelCosts, memoryBytes: number, pixels: number): boolean {
  return memoryOf(costs, 4, 'stages', pixels, 0) <= SHARE_FOR_LONG * memoryBytes;
}

/** Bytes of memory that must be there for a small picture at least. */
export function leastMemory(costs: ModelCosts): number {
  return Math.min(...ACCURACIES.map((accuracy) => memoryOf(costs, accuracy, 'stages', PIXELS_MIN, 0))) / SHARE;
}

/** Bytes by stage for a picture of `pixels`, weights and activations. */
export function stageMemory(
  costs: ModelCosts,
  plan: Pick<ModelPlan, 'accuracy' | 'tileAbovePixels'>,
  stage: Stage,
  pixels: number,
): number {
  const weights = weightMemory(costs.weights[stage], plan.accuracy);
  return weights + costs.activations(stage, decodedAtOnce(stage, pixels, plan.tileAbovePixels), plan.accuracy);
}

function planAccuracy(costs: ModelCosts, accuracy: ModelPlan['accuracy'], availableBytes: number): ModelPlan {
  const budget = SHARE * availableBytes;
  const bytes = (residency: Residency, pixels: number, tileAbove: number) =>
    memoryOf(costs, accuracy, residency, pixels, tileAbove);
  const largestPixels = largest((pixels) => bytes('stages', pixels, 0) <= budget);
  const resident = largest((pixels) => bytes('resident', pixels, 0) <= budget);
  const residentPixels = resident < PIXELS_MIN ? 0 : resident;
  // Loading anew for each picture costs more than tiles do: what is decoded whole must fit beside all parts.
  const [usual, limit] = residentPixels > 0 ? (['resident', resident] as const) : (['stages', largestPixels] as const);
  const whole = largest((pixels) => pixels <= limit && bytes(usual, pixels, pixels) <= budget);
  // In whole powers of two: what a picture's bytes depend on must not change with every few megabytes.
  const isNeverTiled = whole === limit && bytes('stages', largestPixels, largestPixels) <= budget;
  const tileAbovePixels = isNeverTiled ? PIXELS_MAX : whole === 0 ? 0 : 2 ** Math.floor(Math.log2(whole));
  const neededBytes = Math.ceil(
    Math.max(
      bytes('stages', Math.max(PIXELS_MIN, largestPixels), tileAbovePixels),
      residentPixels > 0 ? bytes('resident', residentPixels, tileAbovePixels) : 0,
    ),
  );
  return { accuracy, residentPixels, neededBytes, availableBytes, largestPixels, tileAbovePixels };
}

function memoryOf(
  costs: ModelCosts,
  accuracy: ModelPlan['accuracy'],
  residency: Residency,
  pixels: number,
  tileAbove: number,
): number {
  const weights = STAGES.map((stage) => weightMemory(costs.weights[stage], accuracy));
  const active = STAGES.map((stage) => costs.activations(stage, decodedAtOnce(stage, pixels, tileAbove), accuracy));
  if (residency === 'resident') return BESIDE_BYTES + weights.reduce((sum, n) => sum + n, 0) + Math.max(...active);
  return BESIDE_BYTES + Math.max(...STAGES.map((_, i) => (weights[i] as number) + (active[i] as number)));
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
