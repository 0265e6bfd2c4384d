/**
 * Errors as each dialect's clients read them; which one is spoken follows from the address. Ours has the hint always.
 */
import { type CodedError, ERRORS, type ErrorCode } from '@qwen-supervisor/protocol/errors';
import { z } from 'zod';
import { errorSchema } from './schemas.js';

interface Dialect {
  speaks(path: string): boolean;
  shape: z.ZodType;
  body(error: CodedError): object;
}

const NATIVE: Dialect = {
  speaks: () => true,
  shape: z.object({ error: errorSchema }),
  body: (error) => ({ error: error.toObject() }),
};

/** What each dialect calls the fields of a native request. */
const OPENAI_NAMES = {
  numInferenceSteps: 'num_inference_steps',
  trueCfgScale: 'true_cfg_scale',
  negativePrompt: 'negative_prompt',
};
const SDAPI_NAMES = {
  numInferenceSteps: 'steps',
  trueCfgScale: 'cfg_scale',
  negativePrompt: 'negative_prompt',
  strength: 'denoising_strength',
};
const CLASSIC_NAMES = { ...OPENAI_NAMES, trueCfgScale: 'cfg_scale' };

function rename(message: string, names: Record<string, string>): string {
  return message.replace(/\b\w+\b/g, (word) => (Object.hasOwn(names, word) ? (names[word] as string) : word));
}

const OPENAI: Dialect = {
  speaks: (path) => path.startsWith('/v1/'),
  shape: z.object({
    error: z.object({
      message: z.string(),
      type: z.string(),
      param: z.string().nullable(),
      code: z.string(),
      hint: z.string(),
    }),
  }),
  body(error) {
    const type = ERRORS[error.code].blame === 'caller' ? 'invalid_request_error' : 'server_error';
    const message = rename(error.message, OPENAI_NAMES);
    const [, field] = /^(\w+)(, \w+)*: /.exec(message) ?? [];
    const param = error.code === 'REQUEST_INVALID' ? (field ?? null) : null;
    return { error: { message, type, param, code: error.code, hint: error.hint } };
  },
};

/** A1111's, of which clients show `detail`. */
const SDAPI: Dialect = {
  speaks: (path) => path.startsWith('/sdapi/'),
  shape: z.object({ error: z.string(), detail: z.string(), body: z.string(), errors: z.string() }),
  body({ code, message: native, hint }) {
    const message = rename(native, SDAPI_NAMES);
    return { error: code, detail: message, body: '', errors: `${message}. ${hint}` };
  },
};

/** FastAPI's. */
const CLASSIC: Dialect = {
  speaks: (path) => /^\/(status|health|initialize|aspect-ratios|generate|queue|images|memory)\b/.test(path),
  shape: z.object({ detail: z.string(), code: z.string(), hint: z.string() }),
  body: ({ code, message, hint }) => ({ detail: rename(message, CLASSIC_NAMES), code, hint }),
};

/** The body of an error, for whoever asked at this address. */
export function errorBody(url: string, error: CodedError): object {
  const dialect = [OPENAI, SDAPI, CLASSIC].find((one) => one.speaks(url)) ?? NATIVE;
  return dialect.body(error);
}

/** What any route may answer, whatever it does. */
const ANYWHERE = [
  'REQUEST_INVALID',
  'KEY_REFUSED',
  'ORIGIN_REFUSED',
  'TOO_MANY_REQUESTS',
  'REQUEST_TIMEOUT',
  'BODY_TOO_LARGE',
  'SERVER_BUSY',
  'HEADERS_TOO_LARGE',
  'SUPERVISOR_STOPPING',
] as const satisfies ErrorCode[];

/** Errors of everything that puts jobs into the queue. */
export const SUBMIT_ERRORS = [
  'BODY_INVALID',
  'BODY_TOO_LARGE',
  'SERVER_BUSY',
  'SIZE_TOO_LARGE',
  'UPLOAD_INVALID',
  'IMAGE_NOT_FOUND',
  'IDEMPOTENCY_KEY_REUSED',
  'QUEUE_FULL',
  'DISK_FULL',
  'IMAGE_WRITE_FAILED',
  'WORKER_FAILED',
] as const satisfies ErrorCode[];

/** And of what waits for their pictures. */
export const WAIT_ERRORS = [...SUBMIT_ERRORS, 'JOB_CANCELLED', 'INFERENCE_FAILED'] as const satisfies ErrorCode[];

type Answers = Record<number, z.ZodType>;

function answersOf({ shape }: Dialect) {
  return (ok: Answers, ...codes: ErrorCode[]): Answers => {
    const byStatus = new Map<number, ErrorCode[]>();
    for (const code of new Set([...codes, ...ANYWHERE])) {
      const { http } = ERRORS[code];
      byStatus.set(http, [...(byStatus.get(http) ?? []), code]);
    }
    const errors = [...byStatus].map(([status, of]) => [
      status,
      shape.describe(of.map((code) => `${code}: ${ERRORS[code].message}`).join('; ')),
    ]);
    return { ...Object.fromEntries(errors), ...ok };
  };
}

/** The answers of a route by status: those that are not errors, and the errors that it may give. */
export const answers = answersOf(NATIVE);
export const openaiAnswers = answersOf(OPENAI);
export const sdapiAnswers = answersOf(SDAPI);
export const classicAnswers = answersOf(CLASSIC);
