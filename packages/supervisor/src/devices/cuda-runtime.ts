/** Where CUDA's libraries lie: a folder of the data folder, for the one version of ONNX Runtime that they fit. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** Of npm's onnxruntime-node and of the CUDA provider: both must be of one build. */
export const ONNX_RUNTIME = '1.30.0';
/** Written last: what was installed, and from where. */
export const MANIFEST = 'installed.json';

export function runtimeFolder(dataDir: string): string {
  return join(dataDir, 'runtime', `cuda-${ONNX_RUNTIME}`);
}

/** Folder of the libraries; null where they are not installed whole. */
export function cudaFolder(dataDir: string): string | null {
  const folder = runtimeFolder(dataDir);
  return existsSync(join(folder, MANIFEST)) ? join(folder, 'lib') : null;
}
