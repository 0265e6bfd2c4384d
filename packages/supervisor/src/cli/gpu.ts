import { CodedError, ERRORS, type ErrorObject, toCodedError } from '@qwen-supervisor/protocol/errors';
import type { Command } from 'commander';
import type { CudaInstallation } from '../devices/cuda-runtime.js';
import type { Candidate } from '../devices/devices.js';
import { askRunning, dataDirOf, withDataDir } from './client.js';
import { print, printError } from './printer.js';

interface Options {
  dataDir?: string;
  json?: boolean;
  from?: string;
}

export function addGpu(program: Command): void {
  const gpu = program.command('gpu').description("CUDA's libraries, for NVIDIA cards; others need none");
  const withOptions = (command: Command) => withDataDir(command).option('--json', 'print one JSON object');
  withOptions(gpu.command('install'))
    .description("download CUDA's libraries (1.3 GB) into the data folder, and try them")
    .option('--from <folder>', 'take the packages from a folder instead of downloading them')
    .action(async (options: Options) => {
      const [{ installCuda }, { WHEELS }, { whyNoCuda }, { findDevices }] = await Promise.all([
        import('../devices/cuda-install.js'),
        import('../devices/cuda-wheels.js'),
        import('../devices/devices.js'),
        import('../devices/find-devices.js'),
      ]);
      const dataDir = dataDirOf(options);
      // Who waits for a gigabyte wants to know before; once the driver is there the libraries are of use.
      const missing = whyNoCuda(await findDevices({ 'data-dir': dataDir, 'device-precision': 'auto' }));
      if (missing) printError(`note: ${missing.what}; until then the libraries are of no use. To do: ${missing.step}`);
      await installCuda(dataDir, WHEELS, options.from ?? null, printError);
      return tell(options, await statusOf(dataDir));
    });
  withOptions(gpu.command('status'))
    .description('what is installed, whether it works, and which packages it is made of')
    .action(async (options: Options) => tell(options, await statusOf(dataDirOf(options))));
  withOptions(gpu.command('remove'))
    .description("remove CUDA's libraries")
    .action(async (options: Options) => {
      const dataDir = dataDirOf(options);
      const running = await askRunning(dataDir, ({ link }) => link.request('status', {}));
      const user = running?.children.find(({ device }) => device?.device.startsWith('cuda'));
      if (running && user)
        throw new CodedError('DEVICE_IN_USE', `process ${running.supervisor.pid} computes on ${user.device?.device}`);
      const { removeCuda } = await import('../devices/cuda-install.js');
      const removed = await removeCuda(dataDir);
      print(options.json ? JSON.stringify({ removed }) : removed ? 'removed' : 'nothing was installed');
    });
}

interface GpuStatus {
  folder: string;
  installed: CudaInstallation | null;
  /** Of the installed libraries on the first card; null where nothing is installed. */
  works: boolean | null;
  problem: ErrorObject | null;
  packages: { file: string; sha256: string; bytes: number }[];
}

async function statusOf(dataDir: string): Promise<GpuStatus> {
  const [{ findInstallation, runtimeFolder }, { WHEELS }, { checkDevice }, { candidatesFor }, { findDevices }] =
    await Promise.all([
      import('../devices/cuda-runtime.js'),
      import('../devices/cuda-wheels.js'),
      import('../devices/check-device.js'),
      import('../devices/devices.js'),
      import('../devices/find-devices.js'),
    ]);
  const packages = WHEELS.map(({ file, sha256, bytes }) => ({ file, sha256, bytes }));
  const status = { folder: runtimeFolder(dataDir), installed: findInstallation(dataDir), packages };
  if (!status.installed) return { ...status, works: null, problem: null };
  // A card of which nothing is seen may still answer.
  const [cuda] = candidatesFor(
    'cuda',
    'none',
    await findDevices({ 'data-dir': dataDir, 'device-precision': 'auto' }),
  ).candidates;
  try {
    await checkDevice(cuda as Candidate);
    return { ...status, works: true, problem: null };
  } catch (error) {
    return { ...status, works: false, problem: toCodedError(error).toObject() };
  }
}

/** What does not work is the outcome, told once. */
function tell({ json = false }: Options, { folder, installed, works, problem, packages }: GpuStatus): void {
  if (problem) process.exitCode = ERRORS[problem.code].exit;
  if (json) return print(JSON.stringify({ folder, installed, works, problem, packages }));
  if (!installed) {
    print("CUDA's libraries are not installed: qwen-supervisor gpu install");
    for (const { file, sha256, bytes } of packages)
      print(`${(bytes / 1e6).toFixed(0).padStart(5)} MB  ${sha256}  ${file}`);
    return;
  }
  print(`installed in ${folder}, ${gigabytes(installed)} GB`);
  for (const { name, version } of installed.packages) print(`  ${name} ${version}`);
  if (works) print('works');
  else if (problem) printError(`error ${problem.code}: ${problem.message}\nhint: ${problem.hint}`);
}

function gigabytes({ files }: CudaInstallation): string {
  return (Object.values(files).reduce((sum, bytes) => sum + bytes, 0) / 1e9).toFixed(2);
}
