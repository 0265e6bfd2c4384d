/**
 * CUDA's libraries in a folder of the data folder, for the one version of ONNX Runtime that they fit. Nothing is
 * written into node_modules, which may be somebody else's: ONNX Runtime looks for its providers beside its own library,
 * so that a copy of that lies here too, and a worker finds the copy first (LD_LIBRARY_PATH).
 */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Of npm's onnxruntime-node and of the CUDA provider: both must be of one build. */
const ONNX_RUNTIME = '1.30.0';
/** In the data folder: libraries that were installed. */
export const RUNTIME_FOLDER = 'runtime';
/** Written last: what was installed. */
export const MANIFEST = 'installed.json';

export interface CudaInstallation {
  packages: { name: string; version: string }[];
  /** Bytes by file in the folder `lib`. */
  files: Record<string, number>;
  installedAt: string;
}

export function runtimeFolder(dataDir: string): string {
  return join(dataDir, RUNTIME_FOLDER, `cuda-${ONNX_RUNTIME}`);
}

/** What is installed; null for nothing, or nothing whole. */
export function findInstallation(dataDir: string): CudaInstallation | null {
  const folder = runtimeFolder(dataDir);
  const file = join(folder, MANIFEST);
  if (!existsSync(file)) return null;
  const installation = JSON.parse(readFileSync(file, 'utf8')) as CudaInstallation;
  const isThere = ([name, bytes]: [string, number]) =>
    statSync(join(folder, 'lib', name), { throwIfNoEntry: false })?.size === bytes;
  return Object.entries(installation.files).every(isThere) ? installation : null;
}

/** What a process that computes with the libraries has in its environment; null where they are not installed. */
export function cudaEnvironment(dataDir: string, env: NodeJS.ProcessEnv): Record<string, string> | null {
  if (findInstallation(dataDir) === null) return null;
  const folders = [join(runtimeFolder(dataDir), 'lib'), env.LD_LIBRARY_PATH];
  // CUDA counts the fastest card first unless it is told otherwise; nvidia-smi, and we, by place on the bus.
  return { LD_LIBRARY_PATH: folders.filter(Boolean).join(delimiter), CUDA_DEVICE_ORDER: 'PCI_BUS_ID' };
}
