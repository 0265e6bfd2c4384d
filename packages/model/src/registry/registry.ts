/**
 * Models that were added: a folder each below the data folder's `models`, with the prepared weights and a `model.json`
 * that is written last. Without it there is no such model, whatever else is there.
 */
import { existsSync, mkdirSync, readdirSync, realpathSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { withFolderLock } from '@qwen-supervisor/files/folder-lock';
import { readRegular } from '@qwen-supervisor/files/read-regular';
import { replaceFile } from '@qwen-supervisor/files/replace-file';
import { MODEL_FILE, MODELS_FOLDER, modelFolder } from '@qwen-supervisor/protocol/data-files';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { z } from 'zod';
import { inDiskErrors } from '../prepare/prepare.js';
import { unuseModel } from './in-use.js';

const NAME = /^[a-z0-9][a-z0-9._-]{0,63}$/;

const registrationSchema = z.object({
  version: z.literal(1),
  name: z.string().regex(NAME),
  /** The checkpoint's folder, symbolic links followed. It stays needed: a third of its weights are read from there. */
  source: z.string(),
  /** Of the checkpoint's files when it was added. */
  fingerprint: z.string(),
  quantize: z.enum(['int4', 'int8', 'none']),
  quality: z.enum(['standard', 'best']),
  /** A LoRA that was merged; it stays needed for the modulation. */
  lightning: z
    .object({ file: z.string(), fingerprint: z.string(), steps: z.literal([4, 8]) })
    .nullable()
    .default(null),
  license: z.string().nullable(),
  /** Bytes of the prepared files. */
  bytes: z.number(),
  /** ISO 8601. */
  addedAt: z.string(),
});
export type Registration = z.infer<typeof registrationSchema>;

/** @throws CodedError USAGE_INVALID */
export function checkName(name: string): string {
  if (NAME.test(name)) return name;
  throw new CodedError(
    'USAGE_INVALID',
    `'${name}' is no name for a model: up to 64 of a-z, 0-9, '.', '_' and '-', not '.' first`,
  );
}

/** The model of this name; null where none was added. @throws CodedError MODEL_INVALID */
export function findRegistration(dataDir: string, name: string): Registration | null {
  const file = join(modelFolder(dataDir, name), MODEL_FILE);
  if (!NAME.test(name) || !existsSync(file)) return null;
  try {
    return registrationSchema.parse(JSON.parse(readRegular(file, 1 << 20).bytes.toString('utf8')));
  } catch (cause) {
    throw new CodedError('MODEL_INVALID', `${file}: cannot be understood; remove the model and add it again`, {
      cause,
    });
  }
}

/** @throws CodedError MODEL_NOT_REGISTERED */
export function requireRegistration(dataDir: string, name: string): Registration {
  const found = findRegistration(dataDir, name);
  if (!found) throw notRegistered(dataDir, name);
  return found;
}

function notRegistered(dataDir: string, name: string): CodedError {
  return new CodedError('MODEL_NOT_REGISTERED', `there is no model '${name}' in ${join(dataDir, MODELS_FOLDER)}`);
}

/** By name; and the names of those that are damaged, which keep no other from being used. */
export function listRegistrations(dataDir: string): { models: Registration[]; damaged: string[] } {
  const folder = join(dataDir, MODELS_FOLDER);
  const [models, damaged]: [Registration[], string[]] = [[], []];
  for (const name of existsSync(folder) ? readdirSync(folder).sort() : []) {
    try {
      const found = findRegistration(dataDir, name);
      if (found) models.push(found);
    } catch (error) {
      if (!(error instanceof CodedError)) throw error;
      damaged.push(name);
    }
  }
  return { models, damaged };
}

/**
 * The model that was added last from this checkpoint folder, as it is there; null for none. One with a LoRA draws
 * something else, and is asked for by its name.
 */
export function registrationOf(dataDir: string, checkpointFolder: string): Registration | null {
  const source = realpathSync(checkpointFolder);
  const those = listRegistrations(dataDir).models.filter(
    (model) => model.source === source && model.lightning === null,
  );
  return those.sort((a, b) => a.addedAt.localeCompare(b.addedAt)).at(-1) ?? null;
}

/** From here on the model is there. */
export async function register(dataDir: string, registration: Registration): Promise<void> {
  const file = join(modelFolder(dataDir, registration.name), MODEL_FILE);
  await replaceFile(file, Buffer.from(`${JSON.stringify(registration, null, 2)}\n`));
}

/**
 * First that it is a model, then the rest: what a kill leaves is none. A damaged one, or one never completed, goes
 * as well. @throws CodedError MODEL_NOT_REGISTERED, MODEL_BEING_ADDED
 */
export async function removeModel(dataDir: string, name: string): Promise<void> {
  const folder = modelFolder(dataDir, name);
  if (!NAME.test(name) || !existsSync(folder)) throw notRegistered(dataDir, name);
  await withModelLock(dataDir, name, async () => {
    unuseModel(dataDir, name);
    rmSync(join(folder, MODEL_FILE), { force: true });
    rmSync(folder, { recursive: true, force: true });
  });
}

/**
 * Runs `act` while no other process adds a model of this name: the kernel drops the lock with the process.
 * @throws CodedError MODEL_BEING_ADDED
 */
export async function withModelLock<T>(dataDir: string, name: string, act: () => Promise<T>): Promise<T> {
  const folder = modelFolder(dataDir, name);
  inDiskErrors(folder, () => mkdirSync(folder, { recursive: true }));
  const busy = (cause: unknown) =>
    new CodedError('MODEL_BEING_ADDED', `another process is adding '${name}'`, { cause });
  return withFolderLock(folder, busy, act);
}
