/**
 * The sigma schedule of `FlowMatchEulerDiscreteScheduler` as the Qwen-Image pipeline calls it.
 * Reference: diffusers `scheduling_flow_match_euler_discrete.py` (`set_timesteps`) and `pipeline_qwenimage.py`
 * (`calculate_shift`).
 */
import type { SchedulerConfig } from '@qwen-supervisor/model/architecture';

export interface Schedule {
  /** steps + 1 values from near 1 to 0: the noise share before each step, and after the last. */
  sigmas: Float32Array;
  /** steps values, 0 to numTrainTimesteps. */
  timesteps: Float32Array;
}

const KARRAS_RHO = 7;

/** The schedule of `steps` steps for a picture of `imageTokens` packed tokens. */
export function makeSchedule(config: SchedulerConfig, steps: number, imageTokens: number): Schedule {
  let sigmas: Float32Array = Float32Array.from({ length: steps }, (_, i) => linspace(1, 1 / steps, steps, i));
  sigmas = config.useDynamicShifting
    ? shiftByLength(sigmas, config, imageTokens)
    : sigmas.map((s) => (config.shift * s) / (1 + (config.shift - 1) * s));
  if (config.shiftTerminal !== null) sigmas = stretchToTerminal(sigmas, config.shiftTerminal);
  if (config.spacing !== 'linear') sigmas = respace(sigmas, config.spacing);
  const timesteps = sigmas.map((s) => s * config.numTrainTimesteps);
  const withEnd = new Float32Array(steps + 1);
  withEnd.set(sigmas);
  return { sigmas: withEnd, timesteps };
}

/** More tokens, more noise: mu grows linearly with the sequence and is not clamped. */
function shiftByLength(sigmas: Float32Array, config: SchedulerConfig, imageTokens: number): Float32Array {
  const slope = (config.maxShift - config.baseShift) / (config.maxImageSeqLen - config.baseImageSeqLen);
  const mu = imageTokens * slope + config.baseShift - slope * config.baseImageSeqLen;
  const scale = config.timeShiftType === 'exponential' ? Math.exp(mu) : mu;
  return sigmas.map((s) => scale / (scale + (1 / s - 1)));
}

/** Scales 1 - sigma so that the last sigma is `terminal`. */
function stretchToTerminal(sigmas: Float32Array, terminal: number): Float32Array {
  const factor = (1 - (sigmas.at(-1) as number)) / (1 - terminal);
  // A single step starts and ends at 1: there is nothing to stretch (the reference divides zero by zero here).
  return factor === 0 ? sigmas : sigmas.map((s) => 1 - (1 - s) / factor);
}

function respace(sigmas: Float32Array, spacing: 'karras' | 'exponential'): Float32Array {
  const [first, last] = [sigmas[0] as number, sigmas.at(-1) as number];
  return sigmas.map((_, i) =>
    spacing === 'karras'
      ? linspace(first ** (1 / KARRAS_RHO), last ** (1 / KARRAS_RHO), sigmas.length, i) ** KARRAS_RHO
      : Math.exp(linspace(Math.log(first), Math.log(last), sigmas.length, i)),
  );
}

function linspace(from: number, to: number, count: number, i: number): number {
  return count === 1 ? from : from + ((to - from) * i) / (count - 1);
}
