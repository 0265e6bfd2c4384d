/** What a plan comes to, for a person who asks whether a model will do on a machine. */
import { accuracyFor, type ModelPlan } from '@qwen-supervisor/protocol/model-plan';
import type { Accuracy } from '../layers.js';
import type { Quantisation } from '../prepare/precision.js';
import { type ModelCosts, STAGES, type Stage } from './costs.js';
import { leastMemory, planModel, type Room, stageMemory } from './plan.js';

/** The picture that is asked about. */
export interface Wish {
  width: number;
  height: number;
  steps: number;
  /** Whether each step has two passes. */
  guided: boolean;
}

export interface PlanReport {
  name: string;
  /** How its weights are kept, or would be. */
  quantize: Quantisation;
  /** Bytes of the source that preparing reads, and of what it writes; null where it was done. */
  preparing: { bytesToRead: number; bytesToWrite: number } | null;
  availableBytes: number;
  /** What computes: `cpu`, `webgpu:0`. */
  device: string;
  /** Its own memory, bytes; null for the processor, and where it is not known. */
  cardBytes: number | null;
  /** Below this it cannot be run at all. */
  leastBytes: number;
  /** The same of the card's memory; null where that is not counted apart. */
  leastCardBytes: number | null;
  /** Null where it cannot. */
  plan: ModelPlan | null;
  wish: Wish;
  /** Whether there is memory for the wish. */
  fits: boolean;
  /** Bytes by stage, of its weights and with the wish in it. */
  stages: { stage: Stage; weightBytes: number; bytes: number; isOfCard: boolean }[];
  /**
   * Calculated from how fast the device multiplies; null where there is no plan, and on a card that was not measured.
   * `picture` is null on a card: how fast it decodes was not.
   */
  seconds: { step: number; picture: number | null } | null;
}

/** Of the speed of one multiplication, what a whole pass reaches: 0.69 to 0.8 were measured at full width. */
const EFFICIENCY = 0.75;

/**
 * Operations a second: of one multiplication on the processor, by accuracy; of whole blocks on a card, by the side of a
 * square picture in pixels, none where they were not measured.
 */
export type Speeds =
  | { of: 'processor'; byAccuracy: Record<Accuracy, number> }
  | { of: 'card'; bySide: { side: number; operationsPerSecond: number }[] };

export function reportPlan(
  model: Pick<PlanReport, 'name' | 'quantize' | 'preparing'>,
  costs: ModelCosts,
  { machineBytes, card }: Room,
  device: string,
  wish: Wish,
  speeds: Speeds,
): PlanReport {
  const pixels = wish.width * wish.height;
  const plan = planModel(costs, { machineBytes, card }, pixels);
  const least = leastMemory(costs, card);
  const ways = plan ?? { fastPixels: 0, tileAbovePixels: 0 };
  return {
    ...model,
    availableBytes: machineBytes,
    device,
    cardBytes: card?.bytes ?? null,
    leastBytes: Math.ceil(least.machine),
    leastCardBytes: least.card === null ? null : Math.ceil(least.card),
    plan,
    wish,
    fits: plan !== null && plan.largestPixels >= pixels,
    stages: STAGES.map((stage) => ({
      stage,
      ...stageMemory(costs, ways, stage, pixels, card),
    })),
    // What is not quantised is multiplied in float32.
    seconds: plan && secondsOf(costs, wish, speeds, model.quantize === 'none' ? 0 : accuracyFor(ways, pixels)),
  };
}

function secondsOf(costs: ModelCosts, wish: Wish, speeds: Speeds, accuracy: Accuracy): PlanReport['seconds'] {
  const pixels = wish.width * wish.height;
  const operations = (wish.guided ? 2 : 1) * costs.operations(pixels);
  if (speeds.of === 'card') {
    const apart = ({ side }: { side: number }) => Math.abs(Math.log(side ** 2 / pixels));
    const [nearest] = speeds.bySide.toSorted((a, b) => apart(a) - apart(b));
    return nearest ? { step: operations / nearest.operationsPerSecond, picture: null } : null;
  }
  const step = operations / (EFFICIENCY * speeds.byAccuracy[accuracy]);
  const decoding = costs.decodeOperations(pixels) / (EFFICIENCY * speeds.byAccuracy[0]);
  return { step, picture: wish.steps * step + decoding };
}

const NAMES: Record<Stage, string> = { text_encoder: 'text encoder', transformer: 'transformer', vae: 'VAE' };

/** As lines of text. */
export function planLines({ name, quantize, preparing, ...report }: PlanReport): string[] {
  const { plan, wish, stages, seconds, availableBytes, leastBytes, leastCardBytes, device, cardBytes } = report;
  const size = `${wish.width}x${wish.height}`;
  const kept = quantize === 'none' ? 'as it is' : `in ${quantize}`;
  const lines = [`${name}, ${preparing ? 'kept' : 'prepared'} ${kept}`];
  if (preparing)
    lines.push(`to prepare it once: ${gb(preparing.bytesToRead)} are read, ${gb(preparing.bytesToWrite)} written`);
  const onCard = cardBytes === null ? '' : `, and ${gb(cardBytes)} on ${device}`;
  lines.push(`memory that is there: ${gb(availableBytes)}${onCard}`, '');
  lines.push(`${''.padEnd(14)}${'weights'.padStart(10)}${`with ${size}`.padStart(18)}`);
  for (const { stage, weightBytes, bytes, isOfCard } of stages)
    lines.push(
      `${NAMES[stage].padEnd(14)}${gb(weightBytes).padStart(10)}${gb(bytes).padStart(18)}${isOfCard ? '  on the card' : ''}`,
    );
  lines.push('');
  if (!plan) {
    const isOfCard = leastCardBytes !== null && leastBytes <= availableBytes;
    const needed = isOfCard ? `${gb(leastCardBytes)} of the card's memory` : gb(leastBytes);
    return [...lines, `does not fit: it needs ${needed} for the smallest picture`];
  }
  lines.push(
    wish.width * wish.height <= plan.residentPixels
      ? 'all parts stay in memory'
      : 'the parts are in memory one after the other, and are loaded anew for each picture',
  );
  if (accuracyFor(plan, wish.width * wish.height) === 0 && quantize !== 'none')
    lines.push('multiplied in float32: slower where the processor has VNNI');
  if (wish.width * wish.height > plan.tileAbovePixels) lines.push('decoded in tiles');
  const side = Math.floor(Math.sqrt(plan.largestPixels) / 16) * 16;
  lines.push(
    `the largest picture has ${(plan.largestPixels / 1e6).toFixed(1)} megapixels, ${side}x${side} for example`,
  );
  if (!report.fits) lines.push(`there is no memory for ${size}`);
  const passes = wish.guided ? ', with guidance' : '';
  const { steps } = wish;
  if (!seconds)
    return [
      ...lines,
      `how long a picture takes on ${device}: 'qwen-supervisor bench --probe --device ${device}' measures it for this plan`,
    ];
  if (seconds.picture === null)
    return [
      ...lines,
      `by the last probe for ${size}: ${duration(seconds.step)} a step${passes}, ${duration(steps * seconds.step)} for ${steps} steps, and the decoding`,
    ];
  lines.push(
    `calculated for ${size}: ${duration(seconds.step)} a step${passes}, ${duration(seconds.picture)} for ${steps} steps`,
  );
  return lines;
}

function gb(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`;
}

function duration(seconds: number): string {
  if (seconds < 90) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
