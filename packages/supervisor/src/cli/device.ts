import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Command } from 'commander';
import { configOf, withDataDir } from './client.js';
import { print } from './printer.js';

interface Options {
  dataDir?: string;
  json?: boolean;
}

export function addDevice(program: Command): void {
  const device = program.command('device').description('what this machine can compute pictures with');
  withDataDir(device.command('list'))
    .description('show every device, whether it works, and what is missing')
    .option('--json', 'print one JSON object')
    .action(async (options: Options) => {
      const devices = await listChecked(options);
      print(options.json ? JSON.stringify({ devices }) : lines(devices));
    });
}

/** Each as it is found, tried where nothing is known to be missing. */
async function listChecked(options: Options) {
  const [{ findDevices }, { candidatesFor, listDevices }, { checkDevice }] = await Promise.all([
    import('../devices/find-devices.js'),
    import('../devices/devices.js'),
    import('../devices/check-device.js'),
  ]);
  const config = configOf(options);
  const found = await findDevices(config['data-dir']);
  const devices = listDevices(found);
  // One that the configuration names may be seen by nobody but its driver.
  const [wanted] = candidatesFor(config.device, 'none', found).candidates;
  const isSeen = wanted === undefined || devices.some(({ device }) => device === wanted.device);
  const rows = [];
  for (const one of isSeen ? devices : [wanted, ...devices]) {
    const { device, name, driver, memoryBytes, freeBytes, missing } = one;
    const row = { device, name, driver, memoryBytes, freeBytes };
    if (device === 'cpu') rows.push({ ...row, works: true, missing: null, step: null });
    else if (missing) rows.push({ ...row, works: false, missing: missing.what, step: missing.step });
    else rows.push({ ...row, ...(await tried(() => checkDevice(one))) });
  }
  return rows;
}

async function tried(check: () => Promise<object>) {
  try {
    return { works: true, ...(await check()), missing: null, step: null };
  } catch (error) {
    if (!(error instanceof CodedError)) throw error;
    return { works: false, missing: `${error.code}: ${error.message}`, step: error.hint };
  }
}

function lines(devices: Awaited<ReturnType<typeof listChecked>>): string {
  const gigabytes = (bytes: number | null) => (bytes === null ? null : `${(bytes / 1e9).toFixed(1)} GB`);
  const column = ''.padEnd(10);
  return devices
    .flatMap(({ device, name, driver, memoryBytes, works, missing, step }) => [
      `${device.padEnd(10)}${works ? 'works: ' : 'does not work: '}${[name, gigabytes(memoryBytes), driver].filter(Boolean).join(', ')}`,
      ...(missing ? [`${column}${missing}`, `${column}to do: ${step}`] : []),
    ])
    .join('\n');
}
