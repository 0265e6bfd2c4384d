/**
 * LoRA files: low-rank additions to linear layers, W + scale * up * down, as the distilled Qwen-Image-Lightning are
 * published. Two ways of naming: diffusers and PEFT (`NAME.lora_A.weight`, `NAME.lora_B.weight`), kohya and
 * Lightning (`NAME.lora_down.weight`, `NAME.lora_up.weight`, `NAME.alpha`); names may begin with `transformer.`,
 * `diffusion_model.` or, dots as underscores, `lora_unet_`. Scale: alpha over rank, 1 without alpha.
 * Reference: diffusers `lora_conversion_utils.py`, `_convert_non_diffusers_qwen_lora_to_diffusers`.
 */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { readFloat32, readSafetensorsHeader, type TensorEntry } from '../safetensors.js';

/** The addition to one weight. */
export interface Lora {
  /** [rank, columns]. */
  down: TensorEntry;
  /** [rows, rank]. */
  up: TensorEntry;
  scale: number;
}

interface Parts {
  down?: TensorEntry;
  up?: TensorEntry;
  alpha?: number;
}

const SUFFIX = /^(.+?)\.(?:(lora_A|lora_down)(?:\.default)?\.weight|(lora_B|lora_up)(?:\.default)?\.weight|alpha)$/;

/**
 * The additions of `file` by the name of the layer; `weights` has the shape [rows, columns] of each layer.
 * @throws CodedError LORA_INVALID for tensors that fit no layer of this model, MODEL_* for a file that cannot be read
 */
export function readLora(file: string, weights: Map<string, readonly number[]>): Map<string, Lora> {
  const underscored = new Map([...weights.keys()].map((name) => [name.replaceAll('.', '_'), name]));
  const layerOf = (name: string) => {
    const bare = name.replace(/^(transformer|diffusion_model|base_model\.model)\./, '');
    return weights.has(bare) ? bare : underscored.get(bare.replace(/^lora_(unet|transformer)_/, ''));
  };
  const found = new Map<string, Parts>();
  for (const [name, entry] of readSafetensorsHeader(file)) {
    const [, prefix = '', down, up] = SUFFIX.exec(name) ?? [];
    const layer = layerOf(prefix);
    if (layer === undefined)
      throw invalid(file, `tensor ${name.slice(0, 200)} belongs to no linear layer of this model`);
    const parts = found.get(layer) ?? {};
    found.set(layer, parts);
    if (down) parts.down = entry;
    else if (up) parts.up = entry;
    else parts.alpha = readFloat32(entry)[0] ?? Number.NaN;
  }
  if (found.size === 0) throw invalid(file, 'has no LoRA tensors');
  return new Map([...found].map(([layer, parts]) => [layer, checked(file, layer, parts, weights.get(layer) ?? [])]));
}

function checked(file: string, layer: string, { down, up, alpha }: Parts, shape: readonly number[]): Lora {
  if (!down || !up) throw invalid(file, `${layer}: one of its two matrices is missing`);
  const [rank = 0] = down.shape;
  const fits = `${up.shape}|${down.shape}` === `${shape[0]},${rank}|${rank},${shape[1]}`;
  if (!fits || rank === 0) throw invalid(file, `${layer}: [${up.shape}] x [${down.shape}] does not give [${shape}]`);
  const scale = alpha === undefined ? 1 : alpha / rank;
  if (!Number.isFinite(scale)) throw invalid(file, `${layer}: its alpha is not a number`);
  return { down, up, scale };
}

/** Both matrices of an addition, read. */
export interface LoraMatrices {
  down: Float32Array;
  up: Float32Array;
  rank: number;
  scale: number;
}

export function readMatrices({ down, up, scale }: Lora): LoraMatrices {
  return { down: readFloat32(down), up: readFloat32(up), rank: down.shape[0] as number, scale };
}

/**
 * Adds scale * up * down to `weights`, rows `firstRow` on, [rows, columns]. Sums are made in float64 and rounded once.
 */
export function addLora(weights: Float32Array, firstRow: number, columns: number, lora: LoraMatrices): void {
  const { down, up, rank, scale } = lora;
  const rows = weights.length / columns;
  const sum = new Float64Array(columns);
  for (let row = 0; row < rows; row++) {
    sum.fill(0);
    const ups = (firstRow + row) * rank;
    for (let r = 0; r < rank; r++) {
      const factor = scale * (up[ups + r] as number);
      const at = r * columns;
      for (let c = 0; c < columns; c++) sum[c] = (sum[c] as number) + factor * (down[at + c] as number);
    }
    const start = row * columns;
    for (let c = 0; c < columns; c++) weights[start + c] = (weights[start + c] as number) + (sum[c] as number);
  }
}

function invalid(file: string, problem: string): CodedError {
  return new CodedError('LORA_INVALID', `${file}: ${problem}`);
}
