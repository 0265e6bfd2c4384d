/** A model by its name or its folder: its checkpoint, with the prepared weights where there are any. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { modelFolder } from '@qwen-supervisor/protocol/data-files';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { type Checkpoint, fingerprint, openCheckpoint } from '../checkpoint.js';
import { buildGraphs } from '../graphs.js';
import { openLightning, withLightning } from '../lightning.js';
import { PREPARED } from '../prepare/prepare.js';
import { readSafetensorsHeader } from '../safetensors.js';
import { weightBytes } from '../weights.js';
import { findRegistration, type Registration, registrationOf } from './registry.js';

/**
 * Float32 weights of transformer and text encoder that are made at a folder's first load, bytes: a minute's work. What
 * is larger is added first.
 */
const CONVERTED_MAX = 4e9;

export interface OpenedModel {
  checkpoint: Checkpoint;
  /** Of the model, for people. */
  name: string;
  registration: Registration | null;
  /** Where weights lie that are not used in their own files. */
  cacheFolder: string;
}

/**
 * @param target name of a model that was added, or a checkpoint folder
 * @throws CodedError MODEL_*, MODEL_NOT_ADDED for a folder of real size that was never added
 */
export function openModel(dataDir: string, target: string): OpenedModel {
  const named = findRegistration(dataDir, target);
  const checkpoint = openCheckpoint(named?.source ?? target);
  const registration = named ?? registrationOf(dataDir, checkpoint.folder);
  if (!registration) {
    refuseLarge(checkpoint);
    return {
      checkpoint,
      name: nameOf(checkpoint.folder),
      registration,
      cacheFolder: cacheFolder(dataDir, checkpoint.folder),
    };
  }
  const { name, fingerprint: known } = registration;
  if (fingerprint(checkpoint) !== known)
    throw new CodedError('MODEL_CHANGED', `${checkpoint.folder}: its files are others than when '${name}' was added`);
  const folder = modelFolder(dataDir, name);
  const whole = withRegistered(checkpoint, registration);
  return { checkpoint: withPrepared(whole, folder), name, registration, cacheFolder: folder };
}

/** @throws CodedError MODEL_CHANGED, LORA_INVALID, MODEL_* */
function withRegistered(checkpoint: Checkpoint, { name, lightning: known }: Registration): Checkpoint {
  if (!known) return checkpoint;
  const lightning = openLightning(checkpoint, known.file, known.steps);
  if (lightning.fingerprint !== known.fingerprint)
    throw new CodedError('MODEL_CHANGED', `${known.file}: is another file than when '${name}' was added`);
  return withLightning(checkpoint, lightning);
}

/** The checkpoint with the weights that were prepared in place of its own. */
export function withPrepared(checkpoint: Checkpoint, folder: string): Checkpoint {
  const { tensors } = checkpoint;
  const prepared = (component: keyof typeof PREPARED) => {
    const file = join(folder, PREPARED[component]);
    if (!existsSync(file))
      throw new CodedError('MODEL_INVALID', `${file}: is missing; remove the model and add it again`);
    return tensors[component].with(readSafetensorsHeader(file));
  };
  return {
    ...checkpoint,
    tensors: { ...tensors, text_encoder: prepared('text_encoder'), transformer: prepared('transformer') },
  };
}

function refuseLarge(checkpoint: Checkpoint): void {
  const { textEncoder, transformer } = buildGraphs(checkpoint);
  const bytes = [textEncoder, ...transformer.map(({ graph }) => graph)].reduce(
    (sum, graph) => sum + weightBytes(graph),
    0,
  );
  if (bytes <= CONVERTED_MAX) return;
  const text = `${checkpoint.folder}: has ${(bytes / 1e9).toFixed(0)} GB of weights in float32; run: qwen-supervisor model add '${checkpoint.folder}'`;
  throw new CodedError('MODEL_NOT_ADDED', text);
}

function cacheFolder(dataDir: string, folder: string): string {
  const digest = createHash('sha256').update(folder).digest('hex').slice(0, 12);
  return join(dataDir, 'cache', `${basename(folder)}-${digest}`);
}

/** A snapshot of the Hugging Face cache is called by its commit, its model by the folder around it. */
export function nameOf(folder: string): string {
  const [, name] = /^models--.*--(.+)$/.exec(basename(dirname(dirname(folder)))) ?? [];
  return name ?? basename(folder);
}
