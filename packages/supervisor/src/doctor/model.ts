/** What computes, and what it computes: devices, ONNX Runtime, the checkpoint and its plan. */
import type { Config } from '@qwen-supervisor/protocol/config';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { checkDevice } from '../devices/check-device.js';
import { probeDevice } from '../devices/device-memory.js';
import { type CheckedDevice, listChecked } from '../devices/list-checked.js';
import type { PlannedModel } from '../planned-model.js';
import { type Free, PlannedModels } from '../planned-models.js';
import { type Finding, fail, gigabytes, looked, pass, warn } from './finding.js';

/** Whether its libraries can be loaded, and compute right on the processor. */
export function runtimeFinding(): Promise<Finding> {
  return looked('ONNX Runtime', async () => {
    await checkDevice({ device: 'cpu', env: {} });
    return pass('ONNX Runtime', 'loads, and computes right on the processor');
  });
}

/** `ours`: processes that may have a card's memory. */
export async function deviceFindings(config: Config, ours: readonly (number | null)[]): Promise<Finding[]> {
  const devices = await listChecked(config);
  const holderOn = async ({ nvidia }: CheckedDevice) => (await probeDevice(nvidia, ours)).holder;
  return Promise.all(devices.map(async (device) => deviceFinding(device, await holderOn(device))));
}

/** `holder`: who else has the most of a card's memory; null where nobody has any, or it is not told. */
export function deviceFinding(
  { device, name, driver, memoryBytes, freeBytes, works, missing, step }: CheckedDevice,
  holder: string | null,
): Finding {
  const memory = device === 'cpu' || memoryBytes === null ? null : `${gigabytes(memoryBytes)}`;
  const free = freeBytes === null ? null : `${gigabytes(freeBytes)} free`;
  const what = [name, memory, free, driver].filter((part) => part !== null).join(', ');
  if (!works) return warn(device, `${what}: ${missing}`, step as string);
  const isShort = memoryBytes !== null && freeBytes !== null && freeBytes < memoryBytes / 2;
  if (!isShort || holder === null) return pass(device, what);
  return warn(device, `${what}; of others ${holder} has the most`, 'end it: larger pictures fit then');
}

/** The headers of all files, and whether it fits, on each device; `free`: what will be free by then. */
export async function modelFindings(config: Config, free: Free): Promise<Finding[]> {
  try {
    const models = await PlannedModels.open(config, new AbortController().signal, free);
    return models.names.map((name) => planFinding(models.of(name), config, models.names.length));
  } catch (error) {
    if (!(error instanceof CodedError)) throw error;
    return [fail('model', `${error.code}: ${error.message}`, error.hint)];
  }
}

function planFinding(model: PlannedModel, config: Config, count: number): Finding {
  const { device, reason } = model.device(config);
  const about = count === 1 ? 'model' : `model on ${device}`;
  if (model.info === null) return fail(about, reason, 'the other devices draw without it; mend it, or leave it out');
  const { id, plan } = model.info;
  const needs = `${id} needs ${gigabytes(plan.neededBytes)} of ${gigabytes(plan.availableBytes)}`;
  const largest = `${(plan.largestPixels / 1e6).toFixed(1)} megapixels at most`;
  if (plan.residentPixels === 0)
    return warn(
      about,
      `${needs}, and its parts take turns in memory; ${largest}`,
      'more memory, or a smaller --quantize, is faster',
    );
  return pass(about, `${needs}; ${largest}`);
}
