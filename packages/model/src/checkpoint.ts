/**
 * A checkpoint folder in the diffusers layout: its configs, typed and checked, and the headers of its weight files.
 * Reads headers and lengths only; nothing here loads weights.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { z } from 'zod';
import { type Architecture, parseArchitecture } from './architecture.js';
import { readSafetensorsHeader, type TensorEntry, weightDtype } from './safetensors.js';

export type WeightComponent = 'text_encoder' | 'transformer' | 'vae';

/** The tensors of one component by their canonical name. */
export class Tensors {
  readonly component: WeightComponent;
  readonly #entries: Map<string, TensorEntry>;

  constructor(component: WeightComponent, entries: Map<string, TensorEntry>) {
    this.component = component;
    this.#entries = entries;
  }

  /** Paths of the weight files, sorted. */
  files(): string[] {
    return [...new Set([...this.#entries.values()].map(({ file }) => file))].sort();
  }

  has(name: string): boolean {
    return this.#entries.has(name);
  }

  /**
   * The tensor `name`, which must have this shape.
   * @throws CodedError MODEL_INVALID where it is missing, has another shape or a type that weights cannot have
   */
  get(name: string, shape: readonly number[]): TensorEntry {
    const tensor = this.#entries.get(name);
    if (!tensor) throw new CodedError('MODEL_INVALID', `${this.component}: the tensor ${name} is missing`);
    if (tensor.shape.length !== shape.length || tensor.shape.some((side, axis) => side !== shape[axis])) {
      throw new CodedError(
        'MODEL_INVALID',
        `${tensor.file}: tensor ${name} has the shape [${tensor.shape}], its config asks for [${shape}]`,
      );
    }
    weightDtype(tensor);
    return tensor;
  }
}

export interface Checkpoint {
  folder: string;
  architecture: Architecture;
  tensors: Record<WeightComponent, Tensors>;
}

/**
 * Opens a checkpoint folder.
 * @throws CodedError MODEL_NOT_FOUND, MODEL_INVALID, MODEL_TRUNCATED, MODEL_UNSUPPORTED
 */
export function openCheckpoint(path: string): Checkpoint {
  const folder = resolve(path);
  if (!existsSync(folder)) throw new CodedError('MODEL_NOT_FOUND', `${folder}: there is no such folder`);
  if (!statSync(folder).isDirectory()) throw new CodedError('MODEL_NOT_FOUND', `${folder} is not a folder`);
  const architecture = parseArchitecture({
    modelIndex: readJson(join(folder, 'model_index.json')),
    transformer: readJson(join(folder, 'transformer', 'config.json')),
    textEncoder: readJson(join(folder, 'text_encoder', 'config.json')),
    vae: readJson(join(folder, 'vae', 'config.json')),
    scheduler: readJson(join(folder, 'scheduler', 'scheduler_config.json')),
  });
  tokenizerFolder(folder);
  return {
    folder,
    architecture,
    tensors: {
      text_encoder: new Tensors('text_encoder', canonicalTextNames(openWeights(join(folder, 'text_encoder'), 'model'))),
      transformer: new Tensors('transformer', openWeights(join(folder, 'transformer'), 'diffusion_pytorch_model')),
      vae: new Tensors('vae', openWeights(join(folder, 'vae'), 'diffusion_pytorch_model')),
    },
  };
}

/** Changes when a file of the checkpoint does: by content for the small ones, by size and time for the weights. */
export function fingerprint({ folder, architecture, tensors }: Checkpoint): string {
  const hash = createHash('sha256').update(JSON.stringify(architecture));
  for (const file of Object.values(tensors).flatMap((component) => component.files())) {
    const { size, mtimeMs } = statSync(file);
    hash.update(`\n${file.slice(folder.length)} ${size} ${mtimeMs}`);
  }
  const tokenizer = tokenizerFolder(folder);
  for (const name of readdirSync(tokenizer).sort()) {
    if (/\.(json|txt)$/.test(name)) hash.update(`\n${name}\n`).update(readFileSync(join(tokenizer, name)));
  }
  return hash.digest('hex');
}

/**
 * The folder with the tokenizer's files: `tokenizer/`, or `processor/` in newer layouts. @throws CodedError
 * MODEL_NOT_FOUND
 */
export function tokenizerFolder(checkpointFolder: string): string {
  const has = (folder: string, file: string) => existsSync(join(checkpointFolder, folder, file));
  const folder = ['tokenizer', 'processor'].find(
    (name) => has(name, 'tokenizer.json') || (has(name, 'vocab.json') && has(name, 'merges.txt')),
  );
  if (folder) return join(checkpointFolder, folder);
  throw new CodedError(
    'MODEL_NOT_FOUND',
    `${join(checkpointFolder, 'tokenizer')}: has neither tokenizer.json nor vocab.json and merges.txt`,
  );
}

/** @throws CodedError MODEL_NOT_FOUND, MODEL_INVALID */
export function readJson(file: string): unknown {
  let content: string;
  try {
    content = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new CodedError('MODEL_NOT_FOUND', `${file}: ${(cause as Error).message}`, { cause });
  }
  try {
    return JSON.parse(content);
  } catch (cause) {
    throw new CodedError('MODEL_INVALID', `${file} is not JSON: ${(cause as Error).message}`, { cause });
  }
}

const indexSchema = z.object({ weight_map: z.record(z.string(), z.string().regex(/^[^/\\]+\.safetensors$/)) });

/** The headers of `<stem>.safetensors`, or of the shards that `<stem>.safetensors.index.json` names. */
function openWeights(folder: string, stem: string): Map<string, TensorEntry> {
  const indexFile = join(folder, `${stem}.safetensors.index.json`);
  if (!existsSync(indexFile)) return readSafetensorsHeader(join(folder, `${stem}.safetensors`));
  const index = indexSchema.safeParse(readJson(indexFile));
  if (!index.success) throw new CodedError('MODEL_INVALID', `${indexFile}: has no valid weight_map`);
  const shards = new Map<string, Map<string, TensorEntry>>();
  const entries = new Map<string, TensorEntry>();
  for (const [name, shard] of Object.entries(index.data.weight_map)) {
    const header = shards.get(shard) ?? readSafetensorsHeader(join(folder, shard));
    shards.set(shard, header);
    const entry = header.get(name);
    if (!entry)
      throw new CodedError('MODEL_INVALID', `${join(folder, shard)}: tensor ${name} of the index is not in it`);
    entries.set(name, entry);
  }
  return entries;
}

/**
 * Names of the language model without prefix: `layers.0.…`, `embed_tokens.weight`, `norm.weight`. Files written by
 * transformers before and after its refactoring differ in the prefix. The vision tower and the head are not used.
 */
function canonicalTextNames(entries: Map<string, TensorEntry>): Map<string, TensorEntry> {
  const prefix = /^(?:model\.language_model\.|language_model\.model\.|model\.)(?=layers\.|embed_tokens\.|norm\.)/;
  return new Map(
    [...entries].map(([name, tensor]) => {
      const canonical = name.replace(prefix, '');
      return [canonical, { ...tensor, name: canonical }];
    }),
  );
}
