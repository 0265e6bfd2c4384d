import type { Command } from 'commander';
import type { CheckedDevice } from '../devices/list-checked.js';
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
      const { listChecked } = await import('../devices/list-checked.js');
      const devices = await listChecked(configOf(options));
      print(options.json ? JSON.stringify({ devices }) : lines(devices));
    });
}

function lines(devices: CheckedDevice[]): string {
  const gigabytes = (bytes: number | null) => (bytes === null ? null : `${(bytes / 1e9).toFixed(1)} GB`);
  const column = ''.padEnd(10);
  return devices
    .flatMap(({ device, name, driver, memoryBytes, compute, refused, works, taken, missing, step }) => [
      `${device.padEnd(10)}${works ? 'works: ' : 'does not work: '}${[name, gigabytes(memoryBytes), driver, compute && `computes in ${compute}`].filter(Boolean).join(', ')}`,
      ...(taken ? [`${column}a start takes this one, if the model fits: ${taken}`] : []),
      ...(refused ?? []).map((one) => `${column}not in ${one}`),
      ...(missing ? [`${column}${missing}`, `${column}to do: ${step}`] : []),
    ])
    .join('\n');
}
