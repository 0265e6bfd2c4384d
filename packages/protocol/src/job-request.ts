/** What a job is asked for: everything that decides the bytes of a picture, next to the model. */
import { z } from 'zod';
import { CodedError } from './errors.js';
import { SEED_MAX } from './seed.js';

export interface JobRequest {
  prompt: string;
  negativePrompt: string;
  /** Pixels, a multiple of 16. */
  width: number;
  height: number;
  numInferenceSteps: number;
  /** 1 or less switches classifier-free guidance off. */
  trueCfgScale: number;
  /** Integer, 0 to 2^53 - 1. */
  seed: number;
  /** The picture that is drawn over (image to image), by the SHA-256 of its pixels; null to begin with noise alone. */
  initImage: string | null;
  /** How much of that picture is drawn anew: above 0, at most 1. Null without one. */
  strength: number | null;
  /**
   * Where that picture is drawn anew, by the SHA-256 of a grey picture of the same size: white parts are, black ones
   * stay as they are. Null: everywhere.
   */
  mask: string | null;
}

/** What a request may leave out, by model. */
export interface ModelDefaults {
  width: number;
  height: number;
  numInferenceSteps: number;
  trueCfgScale: number;
  negativePrompt: string;
}

/** What a request is completed from. */
export interface DrawnModel {
  defaults: ModelDefaults;
  /** Of a model that was distilled: the steps that it can draw in, all without guidance; null for any other. */
  distilled: { steps: number[] } | null;
}

/** Bounds set by the operator. */
export interface JobLimits {
  maxSteps: number;
  /** Width times height. */
  maxPixels: number;
  /** Width times height of the largest picture for which there is memory. */
  memoryPixels: number;
}

export const SIDE_MIN = 16;
export const SIDE_MAX = 4096;
export const SIDE_MULTIPLE = 16;
export const STEPS_MAX = 1000;
/** Characters. Texts are cut after 512 tokens, long before; and a page of a hundred jobs must fit into one message. */
export const PROMPT_MAX = 20_000;
export const PRIORITY_MAX = 100;
/** What image to image draws anew unless told otherwise: A1111's value. */
export const STRENGTH_DEFAULT = 0.75;
export const STRENGTH_MIN = 0.01;

const side = z
  .int()
  .min(SIDE_MIN)
  .max(SIDE_MAX)
  .multipleOf(SIDE_MULTIPLE, { error: `must be a multiple of ${SIDE_MULTIPLE}` });

const priority = z.int().min(-PRIORITY_MAX).max(PRIORITY_MAX);

/** The fields of a native request. An omitted field comes from the model's description. */
export const jobRequestSchema = z
  .strictObject({
    prompt: z.string().min(1).max(PROMPT_MAX),
    negativePrompt: z.string().max(PROMPT_MAX).optional(),
    width: side.optional(),
    height: side.optional(),
    numInferenceSteps: z.int().min(1).max(STEPS_MAX).optional(),
    trueCfgScale: z.number().min(0).max(100).optional(),
    seed: z.int().min(0).max(SEED_MAX).optional(),
    priority: priority.optional(),
    initImage: z
      .string()
      .min(1)
      .optional()
      .describe(
        'A picture to draw over: base64, a data: URL, the id of a picture of this server, or initImage of another job',
      ),
    strength: z
      .number()
      .min(STRENGTH_MIN)
      .max(1)
      .optional()
      .describe('How much of initImage is drawn anew; 0.75 if left out'),
    mask: z
      .string()
      .min(1)
      .optional()
      .describe('Where initImage is drawn anew: a picture, as initImage; white parts are, black ones stay'),
  })
  .meta({ examples: [{ prompt: 'a fox on a teal background', seed: 3 }] });

export type NativeRequest = z.output<typeof jobRequestSchema>;

/** A change of a queued job's place. */
export const jobMoveSchema = z
  .strictObject({
    priority: priority.optional(),
    before: z.string().optional().describe('Id of the queued job that is to be drawn next after this one'),
  })
  .refine((move) => (move.priority === undefined) !== (move.before === undefined), {
    error: "give either 'priority' or 'before'",
  });

/** An untyped body as a native request. @throws CodedError BODY_INVALID, REQUEST_INVALID */
export function parseNativeRequest(body: unknown): NativeRequest {
  const parsed = jobRequestSchema.safeParse(requireObject(body));
  if (!parsed.success) throw new CodedError('REQUEST_INVALID', describeIssues(parsed.error));
  return parsed.data;
}

/**
 * A request completed from the model's defaults and checked against the operator's limits. `initImage`, where there is
 * one, is the SHA-256 of a picture that is stored already. `drawSeed` is asked where the request has no seed.
 * @throws CodedError REQUEST_INVALID, SIZE_TOO_LARGE
 */
export function completeRequest(
  given: NativeRequest,
  { defaults, distilled }: DrawnModel,
  limits: JobLimits,
  drawSeed: () => number,
): JobRequest {
  if (given.strength !== undefined && given.initImage === undefined) {
    throw new CodedError('REQUEST_INVALID', 'strength: is for image to image, and there is no initImage');
  }
  if (given.mask !== undefined && given.initImage === undefined) {
    throw new CodedError('REQUEST_INVALID', 'mask: is for image to image, and there is no initImage');
  }
  const request: JobRequest = {
    prompt: given.prompt,
    negativePrompt: given.negativePrompt ?? defaults.negativePrompt,
    width: given.width ?? defaults.width,
    height: given.height ?? defaults.height,
    numInferenceSteps: given.numInferenceSteps ?? defaults.numInferenceSteps,
    trueCfgScale: given.trueCfgScale ?? defaults.trueCfgScale,
    seed: given.seed ?? drawSeed(),
    initImage: given.initImage ?? null,
    strength: given.initImage === undefined ? null : (given.strength ?? STRENGTH_DEFAULT),
    mask: given.mask ?? null,
  };
  requireAllowed(request, { distilled }, limits);
  return request;
}

/**
 * Whether the operator, the model and the memory allow a request, whenever it was made: a job that is tried again may
 * be of another time.
 * @throws CodedError REQUEST_INVALID, SIZE_TOO_LARGE
 */
export function requireAllowed(request: JobRequest, model: Pick<DrawnModel, 'distilled'>, limits: JobLimits): void {
  const { numInferenceSteps: steps, width, height } = request;
  if (steps > limits.maxSteps) {
    throw new CodedError(
      'REQUEST_INVALID',
      `numInferenceSteps: ${steps} is more than this server allows (${limits.maxSteps})`,
    );
  }
  if (width * height > limits.maxPixels) {
    throw new CodedError(
      'REQUEST_INVALID',
      `width, height: ${width}x${height} is more than this server allows (${limits.maxPixels} pixels)`,
    );
  }
  requireDrawable(request, model, limits.memoryPixels);
}

/** Whether the model can draw it in the memory that there is. @throws CodedError REQUEST_INVALID, SIZE_TOO_LARGE */
export function requireDrawable(
  { width, height, numInferenceSteps, trueCfgScale }: JobRequest,
  { distilled }: Pick<DrawnModel, 'distilled'>,
  memoryPixels: number,
): void {
  if (distilled && !distilled.steps.includes(numInferenceSteps)) {
    throw new CodedError(
      'REQUEST_INVALID',
      `numInferenceSteps: this model is distilled, and draws in ${distilled.steps.join(' or ')} steps`,
    );
  }
  if (distilled && trueCfgScale > 1) {
    throw new CodedError('REQUEST_INVALID', 'trueCfgScale: this model is distilled, and draws without guidance: 1');
  }
  if (width * height > memoryPixels) {
    const largest = shrinkTo({ width, height }, memoryPixels);
    throw new CodedError(
      'SIZE_TOO_LARGE',
      `width, height: there is no memory for ${width}x${height}; the largest picture of this shape here is ${largest.width}x${largest.height}`,
    );
  }
}

/**
 * For clients that send steps and guidance whatever the model is: those that it can draw with, and what was changed.
 */
export function adaptToModel<T extends Pick<NativeRequest, 'numInferenceSteps' | 'trueCfgScale'>>(
  given: T,
  { distilled }: DrawnModel,
): { adapted: T; changes: string[] } {
  if (!distilled) return { adapted: given, changes: [] };
  const { numInferenceSteps: steps, trueCfgScale: scale } = given;
  const otherSteps = steps !== undefined && !distilled.steps.includes(steps);
  const guided = scale !== undefined && scale > 1;
  // Left out it is what the model was distilled for.
  const adapted = {
    ...given,
    ...(otherSteps ? { numInferenceSteps: undefined } : {}),
    ...(guided ? { trueCfgScale: undefined } : {}),
  };
  const why = 'this model is distilled';
  return {
    adapted,
    changes: [
      ...(otherSteps ? [`${steps} steps were not made: ${why} for ${distilled.steps.join(' or ')}`] : []),
      ...(guided ? [`guidance of ${scale} was left out: ${why}, and draws without`] : []),
    ],
  };
}

/** A copy, its fields always in this order; requests of earlier versions lack the last ones. */
export function requestOf(job: JobRequest): JobRequest {
  const { prompt, negativePrompt, width, height, numInferenceSteps, trueCfgScale, seed } = job;
  const { initImage = null, strength = null, mask = null } = job;
  return { prompt, negativePrompt, width, height, numInferenceSteps, trueCfgScale, seed, initImage, strength, mask };
}

/** Steps at the noisy end of the schedule that image to image leaves out. Reference: diffusers `get_timesteps`. */
export function skippedSteps({ numInferenceSteps: steps, strength }: JobRequest): number {
  return strength === null ? 0 : Math.trunc(Math.max(steps - Math.min(steps * strength, steps), 0));
}

/** Denoising steps that are made. */
export function stepsOf(request: JobRequest): number {
  return request.numInferenceSteps - skippedSteps(request);
}

/** Tokens of one pass of the transformer. */
export function tokensOf({ width, height }: Pick<JobRequest, 'width' | 'height'>): number {
  return (width / SIDE_MULTIPLE) * (height / SIDE_MULTIPLE);
}

/** How much is to be computed: tokens times passes times steps. */
export function workOf(request: JobRequest): number {
  return tokensOf(request) * (request.trueCfgScale > 1 ? 2 : 1) * stepsOf(request);
}

/**
 * The size for a picture that is drawn over another: its shape, not more pixels than the model's own size, sides in
 * steps of 16.
 */
export function sizeLike(image: { width: number; height: number }, defaults: ModelDefaults) {
  const scale = Math.min(1, Math.sqrt((defaults.width * defaults.height) / (image.width * image.height)));
  return { width: roundSide(image.width * scale), height: roundSide(image.height * scale) };
}

/** The largest size of about the same shape with at most `pixels`, 256 at least; itself where it has no more. */
export function shrinkTo({ width, height }: { width: number; height: number }, pixels: number) {
  if (width * height <= pixels) return { width, height };
  const scale = Math.sqrt(pixels / (width * height));
  const short = floorSide(Math.min(width, height) * scale);
  // A thin one cannot get thinner than one step: then its length has to give more.
  const long = floorSide(Math.min(Math.max(width, height) * scale, pixels / short));
  return width < height ? { width: short, height: long } : { width: long, height: short };
}

/** With sizes of at most so many pixels, where there is no room for larger ones. */
export function withinPixels<T extends Pick<DrawnModel, 'defaults'> & { sizes: Record<string, [number, number]> }>(
  model: T,
  pixels: number,
): T {
  const sizes = Object.entries(model.sizes).map(([ratio, [width, height]]) => {
    const size = shrinkTo({ width, height }, pixels);
    return [ratio, [size.width, size.height]];
  });
  const defaults = { ...model.defaults, ...shrinkTo(model.defaults, pixels) };
  return { ...model, defaults, sizes: Object.fromEntries(sizes) };
}

/** Of a side that was calculated: what lies a rounding error below a step is one. */
function floorSide(pixels: number): number {
  return Math.max(SIDE_MIN, Math.floor(pixels / SIDE_MULTIPLE + 1e-6) * SIDE_MULTIPLE);
}

/** The nearest side that can be drawn. */
export function roundSide(pixels: number): number {
  return Math.min(SIDE_MAX, Math.max(SIDE_MIN, Math.round(pixels / SIDE_MULTIPLE) * SIDE_MULTIPLE));
}

/** A body that is a JSON object. @throws CodedError BODY_INVALID */
export function requireObject(body: unknown): object {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw new CodedError('BODY_INVALID');
  return body;
}

/** The problems of a failed parse in one line: `width: must be a multiple of 16; seed: …`. */
export function describeIssues(error: {
  issues: readonly { path: readonly PropertyKey[]; message: string }[];
}): string {
  return error.issues
    .slice(0, 5)
    .map((issue) => (issue.path.length > 0 ? `${issue.path.join('.')}: ${issue.message}` : issue.message))
    .join('; ');
}
