/** The plan of a model that was added, or of a folder that may be. */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { openCheckpoint } from '../checkpoint.js';
import { describeModel } from '../descriptions.js';
import { buildGraphs } from '../graphs.js';
import { costsOf } from '../plan/costs.js';
import { availableMemory } from '../plan/memory.js';
import { type PlanReport, reportPlan, type Speeds } from '../plan/report.js';
import type { PreflightQuestion } from '../preflight.js';
import { planPreparation } from '../prepare/prepare.js';
import { precisionFor } from './add-model.js';
import { nameOf, type OpenedModel, openModel } from './open-model.js';

export interface PlanQuestion extends PreflightQuestion {
  /** Null for the model's own size. */
  size: { width: number; height: number } | null;
  steps: number | null;
  /** What computes it, by number, name and driver. */
  device: string;
  name: string;
  driver: string | null;
}

/** `measure`: how fast the device is. @throws CodedError MODEL_* */
export async function planOf(
  { target, dataDir, memoryBytes, heldBytes, sharers, card, device, size, steps }: PlanQuestion,
  measure: () => Promise<Speeds>,
): Promise<PlanReport> {
  const opened = openUnlessLarge(dataDir, target);
  const checkpoint = opened?.checkpoint ?? openCheckpoint(target);
  const { architecture, folder } = checkpoint;
  const description = describeModel(checkpoint, opened?.name ?? nameOf(folder));
  const { width, height, numInferenceSteps, trueCfgScale } = description.defaults;
  const room = { machineBytes: memoryBytes ?? Math.floor((availableMemory() + heldBytes) / sharers), card };
  const wish = { width, height, ...size, steps: steps ?? numInferenceSteps, guided: trueCfgScale > 1 };
  const graphs = buildGraphs(checkpoint);
  if (opened) {
    const quantize = opened.registration?.quantize ?? 'none';
    const model = { name: opened.registration?.name ?? description.id, quantize, preparing: null };
    return reportPlan(model, costsOf(architecture, graphs, 'none'), room, device, wish, await measure());
  }
  const quantize = precisionFor(checkpoint, room, width * height);
  const recipe = { source: '', quality: 'standard' as const };
  const { bytesToRead, bytesToWrite } = planPreparation(checkpoint, quantize, new Map(), recipe);
  const model = { name: description.id, quantize, preparing: { bytesToRead, bytesToWrite } };
  return reportPlan(model, costsOf(architecture, graphs, quantize), room, device, wish, await measure());
}

/** Null for a folder of real size that was not added. */
function openUnlessLarge(dataDir: string, target: string): OpenedModel | null {
  try {
    return openModel(dataDir, target);
  } catch (error) {
    if (error instanceof CodedError && error.code === 'MODEL_NOT_ADDED') return null;
    throw error;
  }
}
