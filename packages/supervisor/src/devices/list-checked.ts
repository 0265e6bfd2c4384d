/** Every device of a machine, tried. */
import type { Config } from '@qwen-supervisor/protocol/config';
import { type CheckedAbility, listOfDevices } from '@qwen-supervisor/protocol/device';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { checkDevice } from './check-device.js';
import { candidatesFor, type Device, fallbackOf, listDevices } from './devices.js';
import { findDevices } from './find-devices.js';

export interface CheckedDevice
  extends Pick<Device, 'device' | 'name' | 'driver' | 'memoryBytes' | 'freeBytes' | 'nvidia'>,
    Partial<CheckedAbility> {
  works: boolean;
  /** Why a start would take it, if the model fits; null where it would take another. */
  taken: string | null;
  missing: string | null;
  step: string | null;
}

/** Each as it is found, tried where nothing is known to be missing. */
export async function listChecked(config: Config): Promise<CheckedDevice[]> {
  const found = await findDevices(config);
  const devices = listDevices(found);
  // Those that the configuration names may be seen by nobody but their driver.
  const wishes = listOfDevices(config.device).map((wish) => candidatesFor(wish, fallbackOf(config), found).candidates);
  const unseen = wishes
    .flatMap(([first]) => first ?? [])
    .filter((one) => !devices.some(({ device }) => device === one.device));
  const rows: Omit<CheckedDevice, 'taken'>[] = [];
  for (const one of [...unseen, ...devices]) {
    const { device, name, driver, memoryBytes, freeBytes, nvidia, missing } = one;
    const row = { device, name, driver, memoryBytes, freeBytes, nvidia };
    if (device === 'cpu') rows.push({ ...row, works: true, missing: null, step: null });
    else if (missing) rows.push({ ...row, works: false, missing: missing.what, step: missing.step });
    else rows.push({ ...row, ...(await tried(() => checkDevice(one))) });
  }
  const isAble = ({ device }: Device) => rows.some((row) => row.device === device && row.works);
  const chosen = wishes.flatMap((candidates) => candidates.find(isAble) ?? []);
  return rows.map((row) => ({ ...row, taken: chosen.find(({ device }) => device === row.device)?.reason ?? null }));
}

async function tried(
  check: () => Promise<CheckedAbility>,
): Promise<Pick<CheckedDevice, 'works' | 'missing' | 'step' | keyof CheckedAbility>> {
  try {
    return { works: true, ...(await check()), missing: null, step: null };
  } catch (error) {
    if (!(error instanceof CodedError)) throw error;
    return { works: false, missing: `${error.code}: ${error.message}`, step: error.hint };
  }
}
