/**
 * Checkpoints of Qwen-Image's own width: with all its blocks in files that have headers and no data (sparse), or with
 * few blocks and random values.
 * Names and shapes: diffusers `transformer_qwenimage.py`, `autoencoder_kl_qwenimage.py`; transformers
 * `modeling_qwen2_5_vl.py`.
 */
import { closeSync, cpSync, mkdirSync, openSync, readFileSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { elementCount } from '@qwen-supervisor/model/safetensors';
import { POCKET, safetensorsBytes } from './fixture-files.js';

export type Shapes = Record<string, number[]>;
type WriteFile = (file: string, shapes: Shapes) => void;

const linear = (name: string, to: number, from: number): Shapes => ({
  [`${name}.weight`]: [to, from],
  [`${name}.bias`]: [to],
});

function transformer(layers: number): Shapes {
  const dim = 3072;
  const shapes: Shapes = {
    ...linear('img_in', dim, 64),
    'txt_norm.weight': [3584],
    ...linear('txt_in', dim, 3584),
    ...linear('time_text_embed.timestep_embedder.linear_1', dim, 256),
    ...linear('time_text_embed.timestep_embedder.linear_2', dim, dim),
    ...linear('norm_out.linear', 2 * dim, dim),
    ...linear('proj_out', 64, dim),
  };
  for (let i = 0; i < layers; i++) {
    const block = `transformer_blocks.${i}`;
    for (const name of ['to_q', 'to_k', 'to_v', 'to_out.0', 'add_q_proj', 'add_k_proj', 'add_v_proj', 'to_add_out']) {
      Object.assign(shapes, linear(`${block}.attn.${name}`, dim, dim));
    }
    for (const name of ['norm_q', 'norm_k', 'norm_added_q', 'norm_added_k'])
      shapes[`${block}.attn.${name}.weight`] = [128];
    for (const stream of ['img', 'txt']) {
      Object.assign(shapes, linear(`${block}.${stream}_mod.1`, 6 * dim, dim));
      Object.assign(shapes, linear(`${block}.${stream}_mlp.net.0.proj`, 4 * dim, dim));
      Object.assign(shapes, linear(`${block}.${stream}_mlp.net.2`, dim, 4 * dim));
    }
  }
  return shapes;
}

function textEncoder(layers: number): Shapes {
  const shapes: Shapes = {
    'model.embed_tokens.weight': [152064, 3584],
    'model.norm.weight': [3584],
    'lm_head.weight': [152064, 3584],
  };
  for (let i = 0; i < layers; i++) {
    const layer = `model.layers.${i}`;
    Object.assign(shapes, linear(`${layer}.self_attn.q_proj`, 3584, 3584));
    Object.assign(shapes, linear(`${layer}.self_attn.k_proj`, 512, 3584));
    Object.assign(shapes, linear(`${layer}.self_attn.v_proj`, 512, 3584));
    shapes[`${layer}.self_attn.o_proj.weight`] = [3584, 3584];
    shapes[`${layer}.mlp.gate_proj.weight`] = [18944, 3584];
    shapes[`${layer}.mlp.up_proj.weight`] = [18944, 3584];
    shapes[`${layer}.mlp.down_proj.weight`] = [3584, 18944];
    shapes[`${layer}.input_layernorm.weight`] = [3584];
    shapes[`${layer}.post_attention_layernorm.weight`] = [3584];
  }
  return shapes;
}

function vae(): Shapes {
  const shapes: Shapes = {};
  const conv = (name: string, to: number, from: number, kernel: number[]) => {
    shapes[`${name}.weight`] = [to, from, ...kernel];
    shapes[`${name}.bias`] = [to];
  };
  const cube = [3, 3, 3];
  const residual = (name: string, from: number, to: number) => {
    shapes[`${name}.norm1.gamma`] = [from, 1, 1, 1];
    shapes[`${name}.norm2.gamma`] = [to, 1, 1, 1];
    conv(`${name}.conv1`, to, from, cube);
    conv(`${name}.conv2`, to, to, cube);
    if (from !== to) conv(`${name}.conv_shortcut`, to, from, [1, 1, 1]);
  };
  for (const side of ['encoder', 'decoder']) {
    residual(`${side}.mid_block.resnets.0`, 384, 384);
    residual(`${side}.mid_block.resnets.1`, 384, 384);
    shapes[`${side}.mid_block.attentions.0.norm.gamma`] = [384, 1, 1];
    conv(`${side}.mid_block.attentions.0.to_qkv`, 1152, 384, [1, 1]);
    conv(`${side}.mid_block.attentions.0.proj`, 384, 384, [1, 1]);
  }
  conv('post_quant_conv', 16, 16, [1, 1, 1]);
  conv('quant_conv', 32, 32, [1, 1, 1]);
  conv('decoder.conv_in', 384, 16, cube);
  for (const [level, from, to] of [
    [0, 384, 384],
    [1, 192, 384],
    [2, 192, 192],
    [3, 96, 96],
  ] as const) {
    for (let n = 0; n < 3; n++) residual(`decoder.up_blocks.${level}.resnets.${n}`, n === 0 ? from : to, to);
    if (level < 3) conv(`decoder.up_blocks.${level}.upsamplers.0.resample.1`, to / 2, to, [3, 3]);
  }
  shapes['decoder.norm_out.gamma'] = [96, 1, 1, 1];
  conv('decoder.conv_out', 3, 96, cube);
  conv('encoder.conv_in', 96, 3, cube);
  for (const [n, from, to] of [
    [0, 96, 96],
    [1, 96, 96],
    [3, 96, 192],
    [4, 192, 192],
    [6, 192, 384],
    [7, 384, 384],
    [9, 384, 384],
    [10, 384, 384],
  ] as const) {
    residual(`encoder.down_blocks.${n}`, from, to);
  }
  for (const [n, width] of [
    [2, 96],
    [5, 192],
    [8, 384],
  ] as const)
    conv(`encoder.down_blocks.${n}.resample.1`, width, width, [3, 3]);
  shapes['encoder.norm_out.gamma'] = [384, 1, 1, 1];
  conv('encoder.conv_out', 32, 384, cube);
  return shapes;
}

/** A file with the header of these bf16 tensors, and a hole in place of their data. */
export const writeSparse: WriteFile = (file, shapes) => {
  const { header, bytes } = headerOf(shapes);
  writeFileSync(file, header);
  truncateSync(file, header.length + bytes);
};

/** A file of these bf16 tensors with random values, the same at every call, of the size that networks begin with. */
export const writeValues: WriteFile = (file, shapes) => {
  const fd = openSync(file, 'w');
  try {
    writeSync(fd, headerOf(shapes).header);
    let seed = 1;
    for (const [name, shape] of Object.entries(shapes))
      writeTensor(fd, seed++, elementCount(shape), spreadOf(name, shape));
  } finally {
    closeSync(fd);
  }
};

function headerOf(shapes: Shapes): { header: Buffer; bytes: number } {
  let offset = 0;
  const header = Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => {
      const begin = offset;
      offset += 2 * elementCount(shape);
      return [name, { dtype: 'BF16', shape, data_offsets: [begin, offset] }];
    }),
  );
  return { header: safetensorsBytes(header, Buffer.alloc(0)), bytes: offset };
}

/** Mean and deviation. Norms are ones; a linear keeps the size of its input; modulation is small beside one. */
function spreadOf(name: string, shape: number[]): [mean: number, deviation: number] {
  if (/norm.*\.weight$|layernorm\.weight$|gamma$/.test(name) && !name.includes('linear')) return [1, 0.02];
  // Gates that are open: blocks that add nothing would hide what is wrong with them.
  if (name.endsWith('_mod.1.bias')) return [0.5, 0.2];
  if (name.endsWith('bias')) return [0, 0.02];
  const inputs = elementCount(shape) / (shape[0] as number);
  return [0, (name.includes('_mod.') ? 0.3 : 1) / Math.sqrt(inputs)];
}

/** Value i is a Gaussian picked by a hash of seed and i. */
function writeTensor(fd: number, seed: number, count: number, [mean, deviation]: [number, number]): void {
  const bits = new Uint32Array(new Float32Array(GAUSSIANS.map((value) => mean + deviation * value)).buffer);
  const table = Uint16Array.from(bits, (value) => (value + 0x8000) >>> 16);
  const piece = new Uint16Array(4 << 20);
  for (let at = 0; at < count; at += piece.length) {
    const length = Math.min(piece.length, count - at);
    for (let i = 0; i < length; i++) {
      let x = Math.imul((at + i) ^ Math.imul(seed, 0x9e3779b9), 0x85ebca6b);
      x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
      piece[i] = table[(x ^ (x >>> 16)) & 0xffff] as number;
    }
    writeSync(fd, piece, 0, 2 * length);
  }
}

/** Box and Muller's way, over a lattice. */
const GAUSSIANS = Float64Array.from({ length: 1 << 16 }, (_, i) => {
  const p = (i + 0.5) / (1 << 16);
  const [u1, u2] = [p, ((i * 40503) % 65536) / 65536];
  return Math.sqrt(-2 * Math.log(u1)) * Math.cos(2 * Math.PI * u2);
});

/**
 * Writes a checkpoint of Qwen-Image's own sizes into `folder`, with so many of its 60 blocks and 28 text layers. Its
 * tokenizer is the pocket model's.
 */
export function writeQwenImage(folder: string, write: WriteFile, layers = 60, textLayers = 28): void {
  for (const part of ['transformer', 'text_encoder', 'vae']) mkdirSync(join(folder, part), { recursive: true });
  for (const part of ['model_index.json', 'scheduler', 'tokenizer'])
    cpSync(join(POCKET, part), join(folder, part), { recursive: true });
  const config = (part: string, json: object) => writeFileSync(join(folder, part, 'config.json'), JSON.stringify(json));
  config('transformer', {
    _class_name: 'QwenImageTransformer2DModel',
    attention_head_dim: 128,
    axes_dims_rope: [16, 56, 56],
    guidance_embeds: false,
    in_channels: 64,
    joint_attention_dim: 3584,
    num_attention_heads: 24,
    num_layers: layers,
    out_channels: 16,
    patch_size: 2,
  });
  config('text_encoder', {
    architectures: ['Qwen2_5_VLForConditionalGeneration'],
    hidden_act: 'silu',
    hidden_size: 3584,
    intermediate_size: 18944,
    num_attention_heads: 28,
    num_hidden_layers: textLayers,
    num_key_value_heads: 4,
    rms_norm_eps: 1e-6,
    rope_scaling: { mrope_section: [16, 24, 24], rope_type: 'default', type: 'default' },
    rope_theta: 1000000,
    sliding_window: 32768,
    use_sliding_window: false,
    vocab_size: 152064,
  });
  const pocketVae = JSON.parse(readFileSync(join(POCKET, 'vae/config.json'), 'utf8'));
  config('vae', { ...pocketVae, base_dim: 96, num_res_blocks: 2 });
  write(join(folder, 'transformer/diffusion_pytorch_model.safetensors'), transformer(layers));
  write(join(folder, 'text_encoder/model.safetensors'), textEncoder(textLayers));
  write(join(folder, 'vae/diffusion_pytorch_model.safetensors'), vae());
}
