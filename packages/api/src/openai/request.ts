/** Requests of the OpenAI Images API: their fields, and what those mean here. Reference: OpenAI API, "Images". */
import type { Job } from '@qwen-supervisor/protocol/job';
import { roundSide, SEED_MAX, tokensOf } from '@qwen-supervisor/protocol/job-request';
import { z } from 'zod';
import type { OrderFields } from '../orders.js';
import { type Encoding, FORMATS, QUALITY_DEFAULT } from '../pictures/pictures.js';

/** Pictures of one request, and previews of one picture. OpenAI's own limits. */
const N_MAX = 10;
const PARTIAL_MAX = 3;

/** Forms send numbers and truths as text. */
const whole = z.preprocess((value) => (typeof value === 'string' && value !== '' ? Number(value) : value), z.int());
const number = z.preprocess((value) => (typeof value === 'string' && value !== '' ? Number(value) : value), z.number());
const truth = z.preprocess((value) => (value === 'true' ? true : value === 'false' ? false : value), z.boolean());

export const generationSchema = z.object({
  prompt: z.string().min(1),
  model: z.string().nullish().describe('Any name, unless the operator wants it strict'),
  n: whole.pipe(z.int().min(1).max(N_MAX)).nullish(),
  size: z
    .string()
    .regex(/^(auto|\d{1,5}x\d{1,5})$/, { error: "must be 'auto' or WIDTHxHEIGHT" })
    .nullish(),
  quality: z.string().nullish(),
  background: z.string().nullish(),
  output_format: z.enum(FORMATS).nullish(),
  output_compression: whole.pipe(z.int().min(0).max(100)).nullish(),
  response_format: z.enum(['b64_json', 'url']).nullish(),
  stream: truth.nullish(),
  partial_images: whole.pipe(z.int().min(0).max(PARTIAL_MAX)).nullish(),
  seed: whole.pipe(z.int().min(0).max(SEED_MAX)).nullish(),
  negative_prompt: z.string().nullish(),
  num_inference_steps: whole.nullish(),
  true_cfg_scale: number.nullish(),
});

export const editSchema = generationSchema.extend({
  strength: number.nullish().describe('How much is drawn anew, 0.01 to 1; 0.75 if left out'),
});

export type ImagesRequest = z.output<typeof editSchema>;

export function encodingOf({ output_format, output_compression }: ImagesRequest): Encoding {
  return { format: output_format ?? 'png', quality: Math.max(1, output_compression ?? QUALITY_DEFAULT) };
}

/**
 * Clients read these fields. Nothing is paid for, and texts are not counted here: what is told are the tokens of
 * pictures.
 */
export function usageOf(jobs: Job[]) {
  const tokens = jobs.reduce((sum, job) => sum + tokensOf(job), 0);
  const none = { text_tokens: 0, image_tokens: 0 };
  return { input_tokens: 0, input_tokens_details: none, output_tokens: tokens, total_tokens: tokens };
}

/** The fields of a native request. */
export function toNative(body: ImagesRequest, isEdit: boolean): OrderFields {
  const [width, height] = body.size && body.size !== 'auto' ? body.size.split('x').map(Number) : [];
  // OpenAI's sizes for edits go by what its own models draw; ours follow the picture unless told otherwise.
  const side = (pixels: number | undefined) => (pixels !== undefined && isEdit ? roundSide(pixels) : pixels);
  return {
    prompt: body.prompt,
    negativePrompt: body.negative_prompt ?? undefined,
    width: side(width),
    height: side(height),
    numInferenceSteps: body.num_inference_steps ?? undefined,
    trueCfgScale: body.true_cfg_scale ?? undefined,
    seed: body.seed ?? undefined,
  };
}
