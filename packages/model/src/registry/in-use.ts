/** Which of the models that were added is started where nobody names one. */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { replaceFile } from '@qwen-supervisor/files/replace-file';
import { MODEL_FILE, MODEL_IN_USE_FILE, modelFolder } from '@qwen-supervisor/protocol/data-files';

/** Null where none was chosen, or it is gone. */
export function modelInUse(dataDir: string): string | null {
  const file = join(dataDir, MODEL_IN_USE_FILE);
  if (!existsSync(file)) return null;
  const name = readFileSync(file, 'utf8').trim();
  return existsSync(join(modelFolder(dataDir, name), MODEL_FILE)) ? name : null;
}

export async function useModel(dataDir: string, name: string): Promise<void> {
  await replaceFile(join(dataDir, MODEL_IN_USE_FILE), Buffer.from(`${name}\n`));
}

/** From now on none is, if this one was. */
export function unuseModel(dataDir: string, name: string): void {
  if (modelInUse(dataDir) === name) rmSync(join(dataDir, MODEL_IN_USE_FILE), { force: true });
}
