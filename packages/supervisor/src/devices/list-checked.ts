/** Every device of a machine, tried. */
import type { Config } from '@qwen-supervisor/protocol/config';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { checkDevice } from './check-device.js';
import { candidatesFor, type Device, listDevices } from './devices.js';
import { findDevices } from './find-devices.js';

export interface CheckedDevice extends Pick<Device, 'device' | 'name' | 'driver' | 'memoryBytes' | 'freeBytes'> {
  works: boolean;
  missing: string | null;
  step: string | null;
}

/** Each as it is found, tried where nothing is known to be missing. */
export async function listChecked(config: Config): Promise<CheckedDevice[]> {
  const found = await findDevices(config['data-dir']);
  const devices = listDevices(found);
  // One that the configuration names may be seen by nobody but its driver.
  const [wanted] = candidatesFor(config.device, 'none', found).candidates;
  const isSeen = wanted === undefined || devices.some(({ device }) => device === wanted.device);
  const rows: CheckedDevice[] = [];
  for (const one of isSeen ? devices : [wanted, ...devices]) {
    const { device, name, driver, memoryBytes, freeBytes, missing } = one;
    const row = { device, name, driver, memoryBytes, freeBytes };
    if (device === 'cpu') rows.push({ ...row, works: true, missing: null, step: null });
    else if (missing) rows.push({ ...row, works: false, missing: missing.what, step: missing.step });
    else rows.push({ ...row, ...(await tried(() => checkDevice(one))) });
  }
  return rows;
}

async function tried(check: () => Promise<object>): Promise<Pick<CheckedDevice, 'works' | 'missing' | 'step'>> {
  try {
    return { works: true, ...(await check()), missing: null, step: null };
  } catch (error) {
    if (!(error instanceof CodedError)) throw error;
    return { works: false, missing: `${error.code}: ${error.message}`, step: error.hint };
  }
}
