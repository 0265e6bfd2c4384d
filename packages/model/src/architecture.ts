/**
 * The sizes of a checkpoint, read from its configs. Everything that the graphs and the pipeline know about a model
 * comes from here; a config that asks for something we do not compute is refused rather than ignored.
 */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { z } from 'zod';

export interface TransformerConfig {
  numLayers: number;
  numHeads: number;
  headDim: number;
  /** numHeads * headDim. */
  dim: number;
  /** Channels of a packed token. */
  inChannels: number;
  outChannels: number;
  patchSize: number;
  /** Width of the text states. */
  jointAttentionDim: number;
  /** Sizes of the rotary embedding's axes: frame, height, width. */
  axesDimsRope: [number, number, number];
}

export interface TextEncoderConfig {
  numLayers: number;
  hiddenSize: number;
  intermediateSize: number;
  numHeads: number;
  numKeyValueHeads: number;
  headDim: number;
  vocabSize: number;
  rmsNormEps: number;
  ropeTheta: number;
}

export interface VaeConfig {
  baseDim: number;
  zDim: number;
  dimMult: number[];
  numResBlocks: number;
  attnScales: number[];
  inputChannels: number;
  latentsMean: number[];
  latentsStd: number[];
}

export interface SchedulerConfig {
  numTrainTimesteps: number;
  shift: number;
  useDynamicShifting: boolean;
  baseShift: number;
  maxShift: number;
  baseImageSeqLen: number;
  maxImageSeqLen: number;
  shiftTerminal: number | null;
  timeShiftType: 'exponential' | 'linear';
  spacing: 'linear' | 'karras' | 'exponential';
}

export interface Architecture {
  transformer: TransformerConfig;
  textEncoder: TextEncoderConfig;
  vae: VaeConfig;
  scheduler: SchedulerConfig;
}

const count = z.int().min(1).max(1_000_000_000);

const modelIndexSchema = z.object({ _class_name: z.string() });

// Defaults are those of diffusers' classes: a config leaves out what equals them.
const transformerSchema = z.object({
  _class_name: z.literal('QwenImageTransformer2DModel'),
  num_layers: count.default(60),
  num_attention_heads: count.default(24),
  attention_head_dim: count.multipleOf(2).default(128),
  in_channels: count.default(64),
  out_channels: count.nullable().default(16),
  patch_size: z.literal(2).default(2),
  joint_attention_dim: count.default(3584),
  axes_dims_rope: z.tuple([count.multipleOf(2), count.multipleOf(2), count.multipleOf(2)]).default([16, 56, 56]),
  // Weights of the guidance embedding are never read, even where the flag is set in old configs.
  guidance_embeds: z.literal(false).nullish(),
  zero_cond_t: z.literal(false).nullish(),
  use_additional_t_cond: z.literal(false).nullish(),
  use_layer3d_rope: z.literal(false).nullish(),
});

const ropeSchema = z.object({
  rope_theta: z.number().positive().optional(),
  rope_type: z.enum(['default', 'mrope']).optional(),
  type: z.enum(['default', 'mrope']).optional(),
});

const textSchema = z.object({
  num_hidden_layers: count,
  hidden_size: count,
  intermediate_size: count,
  num_attention_heads: count,
  num_key_value_heads: count.nullish(),
  head_dim: count.nullish(),
  vocab_size: count,
  rms_norm_eps: z.number().positive().default(1e-6),
  hidden_act: z.literal('silu').default('silu'),
  rope_theta: z.number().positive().nullish(),
  rope_parameters: ropeSchema.nullish(),
  rope_scaling: ropeSchema.nullish(),
  use_sliding_window: z.literal(false).nullish(),
});

const vaeSchema = z.object({
  _class_name: z.literal('AutoencoderKLQwenImage'),
  base_dim: count.default(96),
  z_dim: count.default(16),
  dim_mult: z.array(count).default([1, 2, 4, 4]),
  num_res_blocks: count.default(2),
  attn_scales: z.array(z.number()).default([]),
  temperal_downsample: z.array(z.boolean()).default([false, true, true]),
  input_channels: z.literal(3).default(3),
  latents_mean: z.array(z.number()),
  latents_std: z.array(z.number().positive()),
});

const schedulerSchema = z.object({
  _class_name: z.literal('FlowMatchEulerDiscreteScheduler'),
  num_train_timesteps: count.default(1000),
  shift: z.number().positive().default(1),
  use_dynamic_shifting: z.boolean().default(false),
  base_shift: z.number().nullish(),
  max_shift: z.number().nullish(),
  base_image_seq_len: count.default(256),
  max_image_seq_len: count.default(4096),
  shift_terminal: z.number().min(0).lt(1).nullish(),
  time_shift_type: z.enum(['exponential', 'linear']).default('exponential'),
  use_karras_sigmas: z.boolean().nullish(),
  use_exponential_sigmas: z.boolean().nullish(),
  use_beta_sigmas: z.literal(false).nullish(),
  invert_sigmas: z.literal(false).nullish(),
  stochastic_sampling: z.literal(false).nullish(),
});

/** The JSON of each config file, unchecked. */
export interface RawConfigs {
  modelIndex: unknown;
  transformer: unknown;
  textEncoder: unknown;
  vae: unknown;
  scheduler: unknown;
}

/** @throws CodedError MODEL_UNSUPPORTED, MODEL_INVALID */
export function parseArchitecture(raw: RawConfigs): Architecture {
  const index = check('model_index.json', modelIndexSchema, raw.modelIndex);
  if (index._class_name !== 'QwenImagePipeline') {
    throw new CodedError(
      'MODEL_UNSUPPORTED',
      `model_index.json names the pipeline ${index._class_name}, not QwenImagePipeline`,
    );
  }
  const architecture = {
    transformer: transformerConfig(raw.transformer),
    textEncoder: textEncoderConfig(raw.textEncoder),
    vae: vaeConfig(raw.vae),
    scheduler: schedulerConfig(raw.scheduler),
  };
  checkTogether(architecture);
  return architecture;
}

function transformerConfig(raw: unknown): TransformerConfig {
  const c = check('transformer/config.json', transformerSchema, raw);
  return {
    numLayers: c.num_layers,
    numHeads: c.num_attention_heads,
    headDim: c.attention_head_dim,
    dim: c.num_attention_heads * c.attention_head_dim,
    inChannels: c.in_channels,
    outChannels: c.out_channels ?? c.in_channels,
    patchSize: c.patch_size,
    jointAttentionDim: c.joint_attention_dim,
    axesDimsRope: c.axes_dims_rope,
  };
}

function textEncoderConfig(raw: unknown): TextEncoderConfig {
  // Newer transformers nest the language model's sizes under text_config; older ones keep them flat.
  const nested = z.looseObject({ text_config: z.record(z.string(), z.unknown()) }).safeParse(raw);
  const merged = nested.success ? { ...nested.data, ...nested.data.text_config } : raw;
  const c = check('text_encoder/config.json', textSchema, merged);
  return {
    numLayers: c.num_hidden_layers,
    hiddenSize: c.hidden_size,
    intermediateSize: c.intermediate_size,
    numHeads: c.num_attention_heads,
    numKeyValueHeads: c.num_key_value_heads ?? c.num_attention_heads,
    headDim: c.head_dim ?? c.hidden_size / c.num_attention_heads,
    vocabSize: c.vocab_size,
    rmsNormEps: c.rms_norm_eps,
    ropeTheta: c.rope_parameters?.rope_theta ?? c.rope_theta ?? c.rope_scaling?.rope_theta ?? 1_000_000,
  };
}

function vaeConfig(raw: unknown): VaeConfig {
  const c = check('vae/config.json', vaeSchema, raw);
  return {
    baseDim: c.base_dim,
    zDim: c.z_dim,
    dimMult: c.dim_mult,
    numResBlocks: c.num_res_blocks,
    attnScales: c.attn_scales,
    inputChannels: c.input_channels,
    latentsMean: c.latents_mean,
    latentsStd: c.latents_std,
  };
}

function schedulerConfig(raw: unknown): SchedulerConfig {
  const c = check('scheduler/scheduler_config.json', schedulerSchema, raw);
  return {
    numTrainTimesteps: c.num_train_timesteps,
    shift: c.shift,
    useDynamicShifting: c.use_dynamic_shifting,
    baseShift: c.base_shift ?? 0.5,
    maxShift: c.max_shift ?? 1.15,
    baseImageSeqLen: c.base_image_seq_len,
    maxImageSeqLen: c.max_image_seq_len,
    // diffusers takes 0 as "no stretch", too.
    shiftTerminal: c.shift_terminal || null,
    timeShiftType: c.time_shift_type,
    spacing: c.use_karras_sigmas ? 'karras' : c.use_exponential_sigmas ? 'exponential' : 'linear',
  };
}

/** Sizes that one config states and another relies on. */
function checkTogether({ transformer, textEncoder, vae }: Architecture): void {
  const rules: [boolean, string][] = [
    [
      transformer.axesDimsRope.reduce((sum, axis) => sum + axis, 0) === transformer.headDim,
      `transformer: axes_dims_rope [${transformer.axesDimsRope}] must add up to attention_head_dim ${transformer.headDim}`,
    ],
    [
      transformer.inChannels === vae.zDim * transformer.patchSize ** 2,
      `transformer: in_channels ${transformer.inChannels} must be z_dim ${vae.zDim} times the patch's four pixels`,
    ],
    [
      transformer.outChannels * transformer.patchSize ** 2 === transformer.inChannels,
      `transformer: out_channels ${transformer.outChannels} must be in_channels over the patch's four pixels`,
    ],
    [
      transformer.jointAttentionDim === textEncoder.hiddenSize,
      `transformer: joint_attention_dim ${transformer.jointAttentionDim} must be the text encoder's hidden_size ${textEncoder.hiddenSize}`,
    ],
    [
      Number.isInteger(textEncoder.headDim) && textEncoder.headDim % 2 === 0,
      `text_encoder: hidden_size ${textEncoder.hiddenSize} does not give ${textEncoder.numHeads} heads of an even size`,
    ],
    [
      textEncoder.numHeads % textEncoder.numKeyValueHeads === 0,
      `text_encoder: ${textEncoder.numHeads} heads cannot share ${textEncoder.numKeyValueHeads} key-value heads`,
    ],
    [vae.dimMult.length === 4, `vae: dim_mult [${vae.dimMult}] must have four entries (8x compression)`],
    [
      vae.latentsMean.length === vae.zDim && vae.latentsStd.length === vae.zDim,
      `vae: latents_mean and latents_std must have z_dim ${vae.zDim} entries`,
    ],
  ];
  const broken = rules.find(([holds]) => !holds);
  if (broken) throw new CodedError('MODEL_UNSUPPORTED', broken[1]);
}

function check<T extends z.ZodType>(file: string, schema: T, raw: unknown): z.infer<T> {
  const parsed = schema.safeParse(raw);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new CodedError('MODEL_UNSUPPORTED', `${file}: ${issue?.path.join('.') || 'the file'}: ${issue?.message}`);
}
