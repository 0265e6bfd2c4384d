/**
 * Qwen-Image-Lightning: a LoRA that draws in 4 or 8 steps without guidance. Its schedule shifts every picture by ln 3,
 * whatever its size, and ends at 0. Reference: ModelTC/Qwen-Image-Lightning, `generate_with_diffusers.py`.
 */
import { realpathSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { SchedulerConfig } from './architecture.js';
import type { Checkpoint } from './checkpoint.js';
import { type Lora, readLora } from './prepare/lora.js';

/** Steps that a distilled model can draw in. */
export const LIGHTNING_STEPS = [4, 8] as const;

export interface Lightning {
  file: string;
  /** Of the file: changes with it. */
  fingerprint: string;
  /** It was made for. */
  steps: (typeof LIGHTNING_STEPS)[number];
  /** By the name of the layer. */
  layers: Map<string, Lora>;
}

/**
 * The published files say it in their names: Qwen-Image-Lightning-4steps-V2.0-bf16.safetensors. Targets of links
 * do not: a cache calls its files by their digests. @throws CodedError LORA_INVALID
 */
function stepsOf(path: string): Lightning['steps'] {
  const [, number] = /(?<!\d)([48])[-_ ]?steps?/i.exec(basename(path)) ?? [];
  if (number === undefined)
    throw new CodedError('LORA_INVALID', `${path}: its name says neither '4steps' nor '8steps', for which it was made`);
  return number === '4' ? 4 : 8;
}

/** `steps`: where they are known already. @throws CodedError LORA_INVALID, MODEL_* */
export function openLightning(checkpoint: Checkpoint, path: string, steps = stepsOf(path)): Lightning {
  const layers = readLora(path, checkpoint.tensors.transformer.linears());
  const file = realpathSync(path);
  const { size, mtimeMs } = statSync(file);
  return { file, fingerprint: `${basename(file)} ${size} ${mtimeMs}`, steps, layers };
}

/** The checkpoint as the LoRA makes it; its weights beside the modulation's are merged when they are prepared. */
export function withLightning(checkpoint: Checkpoint, lightning: Lightning): Checkpoint {
  const { architecture } = checkpoint;
  return { ...checkpoint, architecture: { ...architecture, scheduler: shifted(architecture.scheduler) }, lightning };
}

function shifted(scheduler: SchedulerConfig): SchedulerConfig {
  return {
    ...scheduler,
    shift: 1,
    useDynamicShifting: true,
    baseShift: Math.log(3),
    maxShift: Math.log(3),
    shiftTerminal: null,
    timeShiftType: 'exponential',
    spacing: 'linear',
  };
}
