/** What computes, and what it computes: devices, ONNX Runtime, the checkpoint and its plan. */
import { lookAtModel } from '@qwen-supervisor/model/preflight';
import type { Config } from '@qwen-supervisor/protocol/config';
import { modelQuestion } from '../config/config-parts.js';
import { cardOf, checkDevice } from '../devices/check-device.js';
import { candidatesFor } from '../devices/devices.js';
import { findDevices } from '../devices/find-devices.js';
import { listChecked } from '../devices/list-checked.js';
import { type Finding, gigabytes, looked, pass, warn } from './finding.js';

/** Whether its libraries can be loaded, and compute right on the processor. */
export function runtimeFinding(): Promise<Finding> {
  return looked('ONNX Runtime', async () => {
    await checkDevice({ device: 'cpu', env: {} });
    return pass('ONNX Runtime', 'loads, and computes right on the processor');
  });
}

export async function deviceFindings(config: Config): Promise<Finding[]> {
  const devices = await listChecked(config);
  return devices.map(({ device, name, driver, memoryBytes, freeBytes, works, missing, step }) => {
    const memory = device === 'cpu' || memoryBytes === null ? null : `${gigabytes(memoryBytes)}`;
    const free = freeBytes === null ? null : `${gigabytes(freeBytes)} free`;
    const what = [name, memory, free, driver].filter((part) => part !== null).join(', ');
    return works ? pass(device, what) : warn(device, `${what}: ${missing}`, step as string);
  });
}

/** The headers of all files, and whether it fits; `heldBytes`: of a worker that runs and will have ended by then. */
export function modelFinding(config: Config, heldBytes: number): Promise<Finding> {
  return looked('model', async () => {
    const { candidates } = candidatesFor(config.device, 'cpu', await findDevices(config['data-dir']));
    const [first] = candidates;
    const card = first === undefined || first.missing !== null ? null : await cardOf(first, 0);
    const { id, plan } = await lookAtModel({ ...modelQuestion(config, heldBytes), card });
    const needs = `${id} needs ${gigabytes(plan.neededBytes)} of ${gigabytes(plan.availableBytes)}`;
    const largest = `${(plan.largestPixels / 1e6).toFixed(1)} megapixels at most`;
    if (plan.residentPixels === 0)
      return warn(
        'model',
        `${needs}, and its parts take turns in memory; ${largest}`,
        'more memory, or a smaller --quantize, is faster',
      );
    return pass('model', `${needs}; ${largest}`);
  });
}
