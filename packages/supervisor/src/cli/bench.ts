import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Command } from 'commander';
import { configOf, withDataDir } from './client.js';
import { runEntry } from './entry.js';

/** Of Qwen-Image's pictures, pixels. */
const SIDES = [512, 1024, 1328];

export function addBench(program: Command): void {
  withDataDir(program.command('bench'))
    .description('measure this machine')
    .option('--probe', "one block of Qwen-Image's width on the device, at 512, 1024 and 1328 pixels")
    .option('--device <device>', 'cpu, cuda or webgpu, of several cards cuda:1; that of the configuration if left out')
    .option('--json', 'print one JSON object')
    .action(async (options: { probe?: boolean; device?: string; dataDir?: string; json?: boolean }) => {
      if (!options.probe) throw new CodedError('USAGE_INVALID', 'bench: name what is to be measured: --probe');
      const [{ findDevices }, { candidatesFor }, { firstWorking }] = await Promise.all([
        import('../devices/find-devices.js'),
        import('../devices/devices.js'),
        import('../devices/check-device.js'),
      ]);
      const config = configOf(options, options.device === undefined ? {} : { device: options.device });
      const fallback = config.device === 'auto' ? 'cpu' : 'none';
      const { candidates } = candidatesFor(config.device, fallback, await findDevices(config['data-dir']));
      // Of `auto` the first that works; one that was named has to.
      const { candidate } = await firstWorking(candidates, () => {});
      const { device, name, driver, env } = candidate;
      const command = { device, name, driver, threads: config.threads, sides: SIDES, json: options.json ?? false };
      return runEntry('@qwen-supervisor/inference/bench-main', [JSON.stringify(command)], env);
    });
}
