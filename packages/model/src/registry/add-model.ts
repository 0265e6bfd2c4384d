/** Adds a checkpoint as a model of this machine: checked, prepared, registered; or, before that, nothing. */
import { existsSync, realpathSync, statfsSync } from 'node:fs';
import { modelFolder } from '@qwen-supervisor/protocol/data-files';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { type Checkpoint, fingerprint, openCheckpoint } from '../checkpoint.js';
import { describeModel } from '../descriptions.js';
import { buildGraphs } from '../graphs.js';
import { type Lightning, openLightning, withLightning } from '../lightning.js';
import { type License, licenseOf } from '../model-card.js';
import { costsOf } from '../plan/costs.js';
import { availableMemory } from '../plan/memory.js';
import { choosePrecision, type Room } from '../plan/plan.js';
import type { Quantisation } from '../prepare/precision.js';
import { type Preparation, planPreparation, prepareWeights } from '../prepare/prepare.js';
import type { Quality } from '../prepare/quantise.js';
import { nameOf } from './open-model.js';
import { checkName, findRegistration, type Registration, register, withModelLock } from './registry.js';

export interface AddOptions {
  quantize: Quantisation | 'auto';
  quality: Quality;
  /** File of a LoRA that draws in few steps; null for the model as it is. */
  lightning: string | null;
  name: string | undefined;
  acceptLicense: boolean;
  threads: number;
  /** For which the precision is chosen; null for what is free. */
  memoryBytes: number | null;
  /** Of what is not free: memory of a worker that will have ended by the time when the model is run. */
  heldBytes: number;
  /** The graphics card that will compute; null for the processor. */
  card: Room['card'];
}

/** A checkpoint that was looked at, and what adding it comes to. */
export interface Checked {
  name: string;
  folder: string;
  quantize: Quantisation;
  license: License;
  lightning: Lightning | null;
  preparation: Preparation;
}

/** Looks at the headers of all files. @throws CodedError MODEL_*, MODEL_EXISTS, USAGE_INVALID */
export function checkModel(dataDir: string, path: string, options: AddOptions): Checked {
  const published = openCheckpoint(path);
  const { quality, memoryBytes, heldBytes, card } = options;
  const lightning = options.lightning === null ? null : openLightning(published, options.lightning);
  const checkpoint = lightning ? withLightning(published, lightning) : published;
  const { id, defaults } = describeModel(checkpoint, nameOf(checkpoint.folder));
  const quantize =
    options.quantize === 'auto'
      ? precisionFor(
          checkpoint,
          { machineBytes: memoryBytes ?? availableMemory() + heldBytes, card },
          defaults.width * defaults.height,
        )
      : options.quantize;
  const suggested = `${id}-${quantize === 'none' ? 'float32' : quantize}`.toLowerCase().replace(/[^a-z0-9._-]+/g, '-');
  const name = checkName(options.name ?? suggested);
  if (findRegistration(dataDir, name)) throw new CodedError('MODEL_EXISTS', `there is a model '${name}'`);
  const source = `${fingerprint(checkpoint)} ${quantize}`;
  const preparation = planPreparation(checkpoint, quantize, lightning?.layers ?? new Map(), { source, quality });
  return { name, folder: checkpoint.folder, quantize, license: licenseOf(checkpoint.folder), lightning, preparation };
}

/** As `auto` chooses it. */
export function precisionFor(checkpoint: Checkpoint, room: Room, pixels: number): 'int4' | 'int8' {
  const graphs = buildGraphs(checkpoint);
  return choosePrecision((kept) => costsOf(checkpoint.architecture, graphs, kept), room, pixels);
}

/**
 * Prepares and registers what `checkModel` has looked at.
 * @throws CodedError LICENSE_NOT_ACCEPTED, DISK_FULL, MODEL_INVALID, MODEL_CHANGED, MODEL_BEING_ADDED
 */
export async function addModel(
  dataDir: string,
  { name, folder, quantize, license, lightning, preparation }: Checked,
  { quality, acceptLicense, threads }: AddOptions,
  onProgress: (bytesDone: number) => void,
): Promise<Registration> {
  if (license.forbidsCommercialUse && !acceptLicense)
    throw new CodedError('LICENSE_NOT_ACCEPTED', `${folder}: its licence (${license.name}) forbids commercial use`);
  const target = modelFolder(dataDir, name);
  return withModelLock(dataDir, name, async () => {
    if (findRegistration(dataDir, name)) throw new CodedError('MODEL_EXISTS', `there is a model '${name}'`);
    requireRoom(target, preparation.bytesToWrite);
    const checkpoint = openCheckpoint(folder);
    const before = fingerprint(checkpoint);
    await prepareWeights(checkpoint, preparation, target, threads, onProgress);
    if (fingerprint(openCheckpoint(folder)) !== before)
      throw new CodedError('MODEL_CHANGED', `${folder}: its files were changed while they were read`);
    const registration: Registration = {
      version: 1,
      name,
      source: realpathSync(folder),
      fingerprint: before,
      quantize,
      quality,
      lightning: lightning && { file: lightning.file, fingerprint: lightning.fingerprint, steps: lightning.steps },
      license: license.name,
      bytes: preparation.bytesToWrite,
      addedAt: new Date().toISOString(),
    };
    await register(dataDir, registration);
    return registration;
  });
}

/** The file of an attempt that was interrupted has its full length already. */
function requireRoom(folder: string, bytes: number): void {
  const { bavail, bsize } = statfsSync(folder);
  if (bavail * bsize > bytes || existsSync(`${folder}/transformer.safetensors.part`)) return;
  const [needed, free] = [bytes, bavail * bsize].map((n) => (n / 1e9).toFixed(1));
  throw new CodedError('DISK_FULL', `${folder}: the prepared weights take ${needed} GB, and ${free} GB are free`);
}
