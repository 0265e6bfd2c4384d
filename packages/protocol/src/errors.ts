/** Errors with a code, as they travel: the table says what each means. */
import { ERRORS } from './error-table.js';

export { ERRORS };

export type ErrorCode = keyof typeof ERRORS;

/** The one shape of an error: in HTTP answers under `error`, in a job's `error`, over IPC. */
export interface ErrorObject {
  code: ErrorCode;
  message: string;
  hint: string;
  /** Where it is known when the same action may succeed; seconds. */
  retryAfterSeconds?: number | undefined;
}

/** An expected failure. `cause` keeps the original error for the log. */
export class CodedError extends Error {
  readonly code: ErrorCode;
  readonly retryAfterSeconds: number | undefined;

  constructor(
    code: ErrorCode,
    message: string = ERRORS[code].message,
    options: { cause?: unknown; retryAfterSeconds?: number | undefined } = {},
  ) {
    super(message, options);
    this.name = 'CodedError';
    this.code = code;
    this.retryAfterSeconds = options.retryAfterSeconds;
  }

  get hint(): string {
    return ERRORS[this.code].hint;
  }

  toObject(): ErrorObject {
    const { code, message, hint, retryAfterSeconds } = this;
    return { code, message, hint, ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }) };
  }

  static from(object: ErrorObject): CodedError {
    const { code, message, retryAfterSeconds } = object;
    return new CodedError(Object.hasOwn(ERRORS, code) ? code : 'INTERNAL', message, { retryAfterSeconds });
  }
}

/** Any thrown value as a coded error; what has no code is a bug of ours. */
export function toCodedError(error: unknown): CodedError {
  if (error instanceof CodedError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new CodedError('INTERNAL', message, { cause: error });
}

/** What everybody hears who waits for, or asks, a worker that has been given up. */
export function workerGivenUp(reason: string): CodedError {
  return new CodedError('WORKER_FAILED', `the inference worker has been given up: ${reason}`);
}

/** Whether the database that machines share is away, and what it knows is still so when it is back. */
export function isStoreAway(error: unknown): boolean {
  return error instanceof CodedError && (error.code === 'STORE_UNREACHABLE' || error.code === 'STORE_SCHEMA_OLD');
}
