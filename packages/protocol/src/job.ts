/** Jobs: one job is one picture. */
import { z } from 'zod';
import { CodedError, type ErrorObject } from './errors.js';

export const JOB_STATUSES = ['queued', 'running', 'done', 'failed', 'cancelled'] as const;
export type JobStatus = (typeof JOB_STATUSES)[number];

/** Terminal states are entered once and never left. */
export function isTerminal(status: JobStatus): boolean {
  return status === 'done' || status === 'failed' || status === 'cancelled';
}

/** Everything that decides the bytes of a picture, next to the model. */
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
}

export interface JobImage {
  id: string;
  /** Path below the server's root; the API puts its origin before it where a client needs an absolute address. */
  url: string;
  /** Of the file's bytes, in hexadecimal. */
  sha256: string;
}

/** A job as every API shows it. */
export interface Job extends JobRequest {
  id: string;
  status: JobStatus;
  /** Completed denoising steps; kept while the job waits for another attempt, which goes on from there. */
  step: number;
  /** Denoising steps in all. */
  steps: number;
  /** Times the job was given to a worker, the current one included. */
  attempts: number;
  /** Higher goes first; equal ones in the order of arrival. */
  priority: number;
  /** Id of the failed or cancelled job that this one repeats. */
  retryOf: string | null;
  /** The step from which the last attempt went on; null if it began at the beginning. */
  resumedAtStep: number | null;
  /** Why the last attempt could not go on where the one before had stopped. */
  startedOverReason: string | null;
  images: JobImage[];
  error: ErrorObject | null;
  /** ISO 8601. */
  createdAt: string;
  /** ISO 8601; null until the job has ended. */
  finishedAt: string | null;
}

/** The request within a job, or a copy of one, its fields always in this order. */
export function requestOf(job: JobRequest): JobRequest {
  const { prompt, negativePrompt, width, height, numInferenceSteps, trueCfgScale, seed } = job;
  return { prompt, negativePrompt, width, height, numInferenceSteps, trueCfgScale, seed };
}

/** A checked request and how it wants to be treated. */
export interface JobOrder {
  request: JobRequest;
  priority: number;
  retryOf: string | null;
}

/**
 * A client that repeats a request with the same key gets the jobs of the first one. `fingerprint` is a digest of what it
 * sent: the same key with another content is a mistake.
 */
export interface Idempotency {
  key: string;
  fingerprint: string;
}

/** What a request may leave out, by model. */
export interface ModelDefaults {
  width: number;
  height: number;
  numInferenceSteps: number;
  trueCfgScale: number;
  negativePrompt: string;
}

/** Bounds set by the operator. */
export interface JobLimits {
  maxSteps: number;
  /** Width times height. */
  maxPixels: number;
}

export const SIDE_MIN = 16;
export const SIDE_MAX = 4096;
export const SIDE_MULTIPLE = 16;
export const STEPS_MAX = 1000;
/** Characters. Texts are cut after 512 tokens, long before; and a page of a hundred jobs must fit into one message. */
export const PROMPT_MAX = 20_000;
/** Seeds are exact JavaScript integers, so that every JSON client can send them back unchanged. */
export const SEED_MAX = Number.MAX_SAFE_INTEGER;
export const PRIORITY_MAX = 100;

const side = z
  .int()
  .min(SIDE_MIN)
  .max(SIDE_MAX)
  .refine((n) => n % SIDE_MULTIPLE === 0, { error: `must be a multiple of ${SIDE_MULTIPLE}` });

/** The fields of a native request. An omitted field comes from the model's description. */
export const jobRequestSchema = z.strictObject({
  prompt: z.string().min(1).max(PROMPT_MAX),
  negativePrompt: z.string().max(PROMPT_MAX).optional(),
  width: side.optional(),
  height: side.optional(),
  numInferenceSteps: z.int().min(1).max(STEPS_MAX).optional(),
  trueCfgScale: z.number().min(0).max(100).optional(),
  seed: z.int().min(0).max(SEED_MAX).optional(),
  priority: z.int().min(-PRIORITY_MAX).max(PRIORITY_MAX).optional(),
});

/**
 * Turns an untyped body into an order, completed from the model's defaults and checked against the operator's limits.
 *
 * `drawSeed` is asked for a seed when the request has none.
 * @throws CodedError BODY_INVALID, REQUEST_INVALID
 */
export function parseJobOrder(
  body: unknown,
  defaults: ModelDefaults,
  limits: JobLimits,
  drawSeed: () => number,
): JobOrder {
  const parsed = jobRequestSchema.safeParse(requireObject(body));
  if (!parsed.success) throw new CodedError('REQUEST_INVALID', describeIssues(parsed.error));
  const { seed, priority, ...given } = parsed.data;
  const request: JobRequest = {
    prompt: given.prompt,
    negativePrompt: given.negativePrompt ?? defaults.negativePrompt,
    width: given.width ?? defaults.width,
    height: given.height ?? defaults.height,
    numInferenceSteps: given.numInferenceSteps ?? defaults.numInferenceSteps,
    trueCfgScale: given.trueCfgScale ?? defaults.trueCfgScale,
    seed: seed ?? drawSeed(),
  };
  if (request.numInferenceSteps > limits.maxSteps) {
    throw new CodedError(
      'REQUEST_INVALID',
      `numInferenceSteps: ${request.numInferenceSteps} is more than this server allows (${limits.maxSteps})`,
    );
  }
  if (request.width * request.height > limits.maxPixels) {
    throw new CodedError(
      'REQUEST_INVALID',
      `width, height: ${request.width}x${request.height} is more than this server allows (${limits.maxPixels} pixels)`,
    );
  }
  return { request, priority: priority ?? 0, retryOf: null };
}

/** A body that is a JSON object. @throws CodedError BODY_INVALID */
export function requireObject(body: unknown): object {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw new CodedError('BODY_INVALID');
  return body;
}

/** The picture of a job that has ended. @throws CodedError of the job, or JOB_CANCELLED */
export function pictureOf(job: Job): JobImage {
  if (job.error) throw CodedError.from(job.error);
  const [image] = job.images;
  if (!image) throw new CodedError('JOB_CANCELLED');
  return image;
}

/** The problems of a failed parse in one line: `width: must be a multiple of 16; seed: …`. */
export function describeIssues(error: z.ZodError): string {
  return error.issues
    .slice(0, 5)
    .map((issue) => (issue.path.length > 0 ? `${issue.path.join('.')}: ${issue.message}` : issue.message))
    .join('; ');
}

/** What happens to a job, in the order in which listeners see it. */
export type JobEvent =
  | { type: 'queued'; jobId: string; job: Job }
  /** A worker draws; it goes on after `step`, or has started over for a reason. */
  | { type: 'running'; jobId: string; attempt: number; step: number; startedOverReason: string | null }
  | { type: 'step'; jobId: string; step: number; steps: number; preview: Uint8Array | null }
  | { type: 'requeued'; jobId: string; attempt: number; step: number; reason: string }
  | { type: 'done'; jobId: string; job: Job }
  | { type: 'failed'; jobId: string; job: Job }
  | { type: 'cancelled'; jobId: string; job: Job };
