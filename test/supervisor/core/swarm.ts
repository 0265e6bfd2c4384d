/**
 * What a simulated world is like: everything is drawn from the seed, so that no two worlds have the same limits,
 * speeds and faults, and a kind of fault that is drowned by others in one world reigns in another. After "swarm
 * testing" (Groce et al., 2012) as TigerBeetle's VOPR does it.
 */
import type { ChildLimits } from '@qwen-supervisor/supervisor/core/child';

/** What can happen to a world, with the greatest probability per moment that a world may draw for it. */
const FAULTS = {
  'worker crashes': 0.03,
  'worker is killed': 0.04,
  'kernel kills the worker': 0.02,
  'worker falls silent': 0.02,
  'worker does nothing': 0.02,
  'worker loops': 0.02,
  'worker takes memory': 0.04,
  'load fails': 0.05,
  'device runs out': 0.02,
  'api dies': 0.04,
  'api says fatal': 0.02,
  'disk fills': 0.02,
  'supervisor is killed': 0.02,
  'supervisor stands still': 0.03,
  'supervisor is stopped': 0.01,
  'store fails': 0.005,
  'checkpoint is lost': 0.03,
  'stray messages': 0.03,
  'client cancels': 0.03,
  'client moves': 0.03,
  'operator restarts': 0.02,
  'operator unloads': 0.05,
  'operator loads': 0.01,
} as const;
export type Fault = keyof typeof FAULTS;
const FAULT_NAMES = Object.keys(FAULTS) as Fault[];

export interface WorldOptions {
  workers: number;
  /** All workers but the first draw small pictures alone. */
  onlyFirstDrawsLarge: boolean;
  limits: ChildLimits;
  /** How long this moves on between two moments. */
  quantumMs: number;
  loadMs: number;
  /** Of a denoising step, give or take a half. */
  stepMs: number;
  /** How far the warm-up is from the truth, as a factor. */
  estimate: number;
  steps: number;
  jobs: number;
  /** Every timer of the supervisor fires this much too late. */
  timerLateMs: number;
  /** Share of messages that wait for a later moment, and of those that never arrive. */
  late: number;
  lost: number;
  /** Memory of a graphics device that the worker holds. */
  deviceBytes: number;
  onStop: 'checkpoint' | 'finish';
  faults: Record<Fault, number>;
}

/** Most of the worker's memory without a fault, and what a fault adds. */
export const MODEL_BYTES = 1e9;
export const TAKEN_BYTES = 1.5e9;
/** Of a small picture, and of a large one. */
export const SIDES = [128, 256] as const;

/** `random`: in [0, 1), seeded. */
export function drawWorld(random: () => number): WorldOptions {
  const between = (low: number, high: number) => Math.round(low * (high / low) ** random());
  const often = (share: number) => random() < share;
  const stepMs = between(100, 60_000);
  const quantumMs = Math.min(2000, Math.max(500, Math.round(stepMs / 4)));
  const limits: ChildLimits = {
    max: Math.ceil(random() * 6),
    windowMs: between(10_000, 600_000),
    delayCapMs: between(1000, 60_000),
    stopMs: between(500, 10_000),
    // Signs of work come once in a moment, and a quarter of this is waited for the last one.
    loadStallMs: 8 * quantumMs + between(1000, 45_000),
    loadLimitMs: between(10_000, 120_000),
    // Beats come once in a moment, and a moment late.
    beatLimitMs: 6 * quantumMs + between(2000, 30_000),
    stepLimitMs: between(5000, 60_000),
    softBytes: often(0.3) ? MODEL_BYTES + TAKEN_BYTES / 2 : null,
    hardBytes: often(0.3) ? MODEL_BYTES + 1.5 * TAKEN_BYTES : null,
    hasNextDevice: often(0.3),
  };
  const faults = Object.fromEntries(
    FAULT_NAMES.map((name) => [name, often(0.5) ? 0 : FAULTS[name] * random()]),
  ) as Record<Fault, number>;
  return {
    workers: often(0.5) ? 1 : Math.ceil(1 + 3 * random()),
    onlyFirstDrawsLarge: often(0.3),
    limits,
    quantumMs,
    loadMs: between(500, 30_000),
    stepMs,
    estimate: between(30, 300) / 100,
    steps: Math.ceil(random() * 6),
    jobs: stepMs > 5000 ? 4 : 20,
    timerLateMs: often(0.1) ? between(10, 2000) : 0,
    late: often(0.5) ? 0 : 0.5 * random(),
    lost: often(0.9) ? 0 : 0.03 * random(),
    deviceBytes: often(0.2) ? 8e9 : 0,
    onStop: often(0.5) ? 'checkpoint' : 'finish',
    faults,
  };
}

/** In a few lines, for the report of a failure: what is 0 or without limit is left out. */
export function describeWorld({ limits, faults, ...speeds }: WorldOptions): string {
  const shown = (record: object) =>
    Object.entries(record)
      .filter(([, value]) => value !== 0 && value !== null)
      .map(([name, value]) => `${name} ${typeof value === 'number' ? Number(value.toPrecision(3)) : value}`)
      .join(', ');
  return `world: ${shown(speeds)}\nlimits: ${shown(limits)}\nfaults: ${shown(faults)}`;
}
