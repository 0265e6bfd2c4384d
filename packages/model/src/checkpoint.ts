/**
 * A checkpoint folder in the diffusers layout: its configs, typed and checked, and the headers of its weight files.
 * Reads headers and lengths only; nothing here loads weights.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { readRegular } from '@qwen-supervisor/files/read-regular';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { z } from 'zod';
import { type Architecture, parseArchitecture } from './architecture.js';
import { checkpointFolder } from './checkpoint-folder.js';
import { isWeightDtype } from './dtype.js';
import { HEAD_BYTES, quantisedBy, refuseForeign, refuseQuantised } from './foreign-files.js';
import type { Lightning } from './lightning.js';
import { BLOCK, CODES, SCALES } from './prepare/quantise.js';
import { readSafetensorsHeader, type TensorEntry, unopened, weightDtype } from './safetensors.js';

/** Bytes of a JSON file: a tokenizer of 150,000 words takes 12 MB. */
export const JSON_MAX = 64 << 20;
/** Weight files of a component, and tensors in all of them. */
const SHARDS_MAX = 200;
const TENSORS_MAX = 50_000;

export type WeightComponent = 'text_encoder' | 'transformer' | 'vae';

/** A linear layer's weight in blocks along its columns, as `MatMulNBits` reads it (prepare/quantise.ts). */
export interface QuantisedWeight {
  bits: 4 | 8;
  /** [rows, blocks, bytes of a block]. */
  codes: TensorEntry;
  /** [rows * blocks]. */
  scales: TensorEntry;
}

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
      const side = quantisedBy(this.#entries.keys());
      if (side !== null || !isWeightDtype(tensor.dtype))
        throw new CodedError(
          'MODEL_UNSUPPORTED',
          `${tensor.file}: its weights are quantised (tensor ${side ?? tensor.name}); use the bf16 folder`,
        );
      throw new CodedError(
        'MODEL_INVALID',
        `${tensor.file}: tensor ${name} has the shape [${tensor.shape}], its config asks for [${shape}]`,
      );
    }
    weightDtype(tensor);
    return tensor;
  }

  /** Codes and scales of the weight `name` [rows, columns]; null where it has none. @throws CodedError MODEL_INVALID */
  quantised(name: string, [rows, columns]: readonly [number, number]): QuantisedWeight | null {
    const [codes, scales] = [this.#entries.get(`${name}${CODES}`), this.#entries.get(`${name}${SCALES}`)];
    if (!codes || !scales) return null;
    const blocks = Math.ceil(columns / BLOCK);
    const bits = codes.shape[2] === BLOCK ? 8 : 4;
    const fits = `${codes.shape} ${scales.shape}` === `${rows},${blocks},${(BLOCK * bits) / 8} ${rows * blocks}`;
    if (!fits)
      throw new CodedError('MODEL_INVALID', `${codes.file}: the codes of ${name} have the shape [${codes.shape}]`);
    return { bits, codes, scales };
  }

  /** Shapes of all matrices by the name of their layer. */
  linears(): Map<string, readonly number[]> {
    const matrices = [...this.#entries.values()].filter(
      ({ name, shape }) => name.endsWith('.weight') && shape.length === 2,
    );
    return new Map(matrices.map(({ name, shape }) => [name.replace(/\.weight$/, ''), shape]));
  }

  /** With `entries` in place of those of the same name. */
  with(entries: Map<string, TensorEntry>): Tensors {
    return new Tensors(this.component, new Map([...this.#entries, ...entries]));
  }
}

export interface Checkpoint {
  folder: string;
  architecture: Architecture;
  tensors: Record<WeightComponent, Tensors>;
  /** What it was distilled with; null for a checkpoint as it was published. */
  lightning: Lightning | null;
}

/**
 * Opens a checkpoint folder.
 * @throws CodedError MODEL_NOT_FOUND, MODEL_INVALID, MODEL_TRUNCATED, MODEL_UNSUPPORTED
 */
export function openCheckpoint(path: string): Checkpoint {
  const folder = checkpointFolder(path);
  const architecture = parseArchitecture({
    modelIndex: readJson(join(folder, 'model_index.json')),
    transformer: readConfig(join(folder, 'transformer', 'config.json')),
    textEncoder: readConfig(join(folder, 'text_encoder', 'config.json')),
    vae: readConfig(join(folder, 'vae', 'config.json')),
    scheduler: readJson(join(folder, 'scheduler', 'scheduler_config.json')),
  });
  tokenizerFolder(folder);
  return {
    folder,
    architecture,
    lightning: null,
    tensors: {
      text_encoder: new Tensors('text_encoder', canonicalTextNames(openWeights(join(folder, 'text_encoder'), 'model'))),
      transformer: new Tensors('transformer', openWeights(join(folder, 'transformer'), 'diffusion_pytorch_model')),
      vae: new Tensors('vae', openWeights(join(folder, 'vae'), 'diffusion_pytorch_model')),
    },
  };
}

/** Changes when a file of the checkpoint does: by content for the small ones, by size and time for the weights. */
export function fingerprint({ folder, architecture, tensors, lightning }: Checkpoint): string {
  const hash = createHash('sha256').update(JSON.stringify(architecture));
  if (lightning) hash.update(`\n${lightning.fingerprint}`);
  for (const file of Object.values(tensors).flatMap((component) => component.files())) {
    const { size, mtimeMs } = statSync(file);
    hash.update(`\n${file.slice(folder.length)} ${size} ${mtimeMs}`);
  }
  const tokenizer = tokenizerFolder(folder);
  for (const name of readdirSync(tokenizer).sort()) {
    if (/\.(json|txt)$/.test(name))
      hash.update(`\n${name}\n`).update(readRegular(join(tokenizer, name), JSON_MAX).bytes);
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

function readConfig(file: string): unknown {
  const config = readJson(file);
  refuseQuantised(file, config);
  return config;
}

/** @throws CodedError MODEL_NOT_FOUND, MODEL_INVALID, MODEL_NOT_DOWNLOADED */
export function readJson(file: string): unknown {
  let content: string;
  try {
    content = readRegular(file, JSON_MAX).bytes.toString('utf8');
  } catch (cause) {
    throw unopened(file, cause as NodeJS.ErrnoException);
  }
  refuseForeign(file, Buffer.from(content.slice(0, HEAD_BYTES)));
  try {
    return JSON.parse(content);
  } catch (cause) {
    throw new CodedError('MODEL_INVALID', `${file} is not JSON: ${(cause as Error).message}`, { cause });
  }
}

const indexSchema = z.object({ weight_map: z.record(z.string(), z.string().regex(/^[^/\\]+\.safetensors$/)) });

/**
 * The headers of `<stem>.safetensors`, or of the shards that its index names; of a variant (`<stem>.fp16.safetensors`)
 * where that is all there is.
 */
function openWeights(folder: string, stem: string): Map<string, TensorEntry> {
  const { index, single } = weightFiles(folder, stem);
  if (index === null) return readSafetensorsHeader(join(folder, single));
  const indexFile = join(folder, index);
  const parsed = indexSchema.safeParse(readJson(indexFile));
  if (!parsed.success) throw new CodedError('MODEL_INVALID', `${indexFile}: has no valid weight_map`);
  const map = Object.entries(parsed.data.weight_map);
  if (map.length > TENSORS_MAX || new Set(map.map(([, shard]) => shard)).size > SHARDS_MAX)
    throw new CodedError('MODEL_INVALID', `${indexFile}: names more than a model of this kind has`);
  const shards = new Map<string, Map<string, TensorEntry>>();
  const entries = new Map<string, TensorEntry>();
  for (const [name, shard] of map) {
    const header = shards.get(shard) ?? readSafetensorsHeader(join(folder, shard));
    shards.set(shard, header);
    const entry = header.get(name);
    if (!entry)
      throw new CodedError('MODEL_INVALID', `${join(folder, shard)}: tensor ${name} of the index is not in it`);
    entries.set(name, entry);
  }
  return entries;
}

/** Names in `folder`. @throws CodedError MODEL_UNSUPPORTED for weights of another kind */
function weightFiles(folder: string, stem: string): { index: string | null; single: string } {
  const names = existsSync(folder) ? readdirSync(folder) : [];
  const own = `${stem}.safetensors`;
  const has = (name: string) => names.includes(name);
  if (has(`${own}.index.json`)) return { index: `${own}.index.json`, single: own };
  if (has(own)) return { index: null, single: own };
  const variant = (pattern: RegExp) => names.filter((name) => name.startsWith(`${stem}.`) && pattern.test(name)).sort();
  const [index] = variant(/\.safetensors\.index\.\w+\.json$/);
  const [single] = variant(/\.\w+\.safetensors$/);
  if (index !== undefined || single !== undefined) return { index: index ?? null, single: single ?? own };
  const other = names.find((name) => /\.(gguf|bin|ckpt|pth?|msgpack|h5)$/.test(name));
  if (other !== undefined)
    throw new CodedError('MODEL_UNSUPPORTED', `${folder}: has ${other} and no ${own}; safetensors are read alone`);
  return { index: null, single: own };
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
