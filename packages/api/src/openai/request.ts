/** Requests of the OpenAI Images API: their fields, and what those mean here. Reference: OpenAI API, "Images". */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Job } from '@qwen-supervisor/protocol/job';
import { roundSide, tokensOf } from '@qwen-supervisor/protocol/job-request';
import { SEED_MAX } from '@qwen-supervisor/protocol/seed';
import { z } from 'zod';
import { sidesOf } from '../contract/wording.js';
import type { OrderFields } from '../orders.js';
import { type Encoding, FORMATS, QUALITY_DEFAULT } from '../pictures/pictures.js';

/** Pictures of one request, and previews of one picture. OpenAI's own limits. */
const N_MAX = 10;
const PARTIAL_MAX = 3;

export const generationSchema = z.object({
  prompt: z.string().min(1),
  model: z.string().nullish().describe('Any name, unless the operator wants it strict'),
  n: z.int().min(1).max(N_MAX).nullish(),
  size: z.string().nullish().describe('auto or WIDTHxHEIGHT; the nearest multiples of 16 are drawn'),
  width: z.number().nullish().describe('As in size'),
  height: z.number().nullish(),
  quality: z.string().nullish(),
  background: z.string().nullish(),
  output_format: z.enum([...FORMATS, 'jpg']).nullish(),
  output_compression: z.int().min(0).max(100).nullish(),
  response_format: z.enum(['b64_json', 'url']).nullish(),
  stream: z.boolean().nullish(),
  partial_images: z.int().min(0).max(PARTIAL_MAX).nullish(),
  seed: z.int().min(0).max(SEED_MAX).nullish(),
  negative_prompt: z.string().nullish(),
  num_inference_steps: z.int().nullish(),
  true_cfg_scale: z.number().nullish(),
});

export const editSchema = generationSchema.extend({
  strength: z.number().nullish().describe('How much is drawn anew, 0.01 to 1; 0.75 if left out'),
});

/** A picture within JSON: base64 or a data: URL, alone or as OpenAI's `image_url`. */
const pictureSchema = z.union([
  z.string(),
  z.object({ image_url: z.union([z.string(), z.object({ url: z.string() })]) }),
]);

/** An edit as JSON, as OpenAI takes them besides forms. */
export const jsonEditSchema = editSchema.extend({
  image: z.union([pictureSchema, z.array(pictureSchema)]).nullish(),
  images: z.array(pictureSchema).nullish(),
  mask: pictureSchema.nullish(),
});

export type ImagesRequest = z.output<typeof editSchema>;

export function encodingOf({ output_format, output_compression }: ImagesRequest): Encoding {
  const format = output_format === 'jpg' ? 'jpeg' : (output_format ?? 'png');
  return { format, quality: Math.max(1, output_compression ?? QUALITY_DEFAULT) };
}

/** The text of a picture within JSON. */
export function pictureText(picture: z.output<typeof pictureSchema>): string {
  if (typeof picture === 'string') return picture;
  return typeof picture.image_url === 'string' ? picture.image_url : picture.image_url.url;
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

/** The fields of a native request. @throws CodedError REQUEST_INVALID */
export function toNative(body: ImagesRequest): OrderFields {
  const [width, height] = sizeOf(body);
  // OpenAI's sizes go by what its own models draw, and other clients' by what theirs do.
  const side = (pixels: number | null) => (pixels === null ? undefined : roundSide(pixels));
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

function sizeOf({ size, width = null, height = null }: ImagesRequest): [number | null, number | null] {
  if (!size || size.trim().toLowerCase() === 'auto') return [width, height];
  const sides = sidesOf(size);
  if (!sides) throw new CodedError('REQUEST_INVALID', "size: must be 'auto' or WIDTHxHEIGHT");
  if ((width !== null && width !== sides[0]) || (height !== null && height !== sides[1]))
    throw new CodedError('REQUEST_INVALID', 'size, width, height: say different things');
  return sides;
}
