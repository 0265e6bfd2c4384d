/** Pictures in the data folder that nobody wants any more. */
import { readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { INPUTS_FOLDER, thumbnailFile } from '@qwen-supervisor/protocol/data-files';

/** A picture to draw over is stored before its job is accepted: what is younger may still be wanted. */
const INPUT_AGE_MS = 3_600_000;

/** A finished picture and what was made of it; `file` is relative to the data folder. */
export function removePicture(dataDir: string, file: string): void {
  for (const path of [file, thumbnailFile(file)]) rmSync(join(dataDir, path), { force: true });
}

/** Pictures that no job draws over; `wanted` are the SHA-256 of those that one does. */
export function removeInputs(dataDir: string, wanted: Set<string>): void {
  const folder = join(dataDir, INPUTS_FOLDER);
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    const old = Date.now() - statSync(path).mtimeMs > INPUT_AGE_MS;
    if (old && !wanted.has(name.split('.')[0] as string)) rmSync(path);
  }
}
