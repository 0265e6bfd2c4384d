/** Pictures in the data folder that nobody wants any more. */
import { readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { INPUTS_FOLDER, THUMBNAIL_SIDES, thumbnailFile } from '@qwen-supervisor/protocol/data-files';
import type { Logger } from 'pino';

/** A picture to draw over is stored before its job is accepted: what is younger may still be wanted. */
export const INPUT_AGE_MS = 3_600_000;

/** Removes files that nobody needs any more; where that fails they are in nobody's way. */
export function tidily(log: Logger, remove: () => void): void {
  try {
    remove();
  } catch (error) {
    log.warn(`files that are no longer needed were not removed: ${(error as Error).message}`);
  }
}

/** A finished picture and what was made of it; `file` is relative to the data folder. */
export function removePicture(dataDir: string, file: string): void {
  const made = THUMBNAIL_SIDES.map((side) => thumbnailFile(file, side));
  for (const path of [file, ...made]) rmSync(join(dataDir, path), { force: true });
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
