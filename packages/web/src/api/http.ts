/** Calls to the API. An error is what the server says of it: code, message, hint. */
import { NETWORK, PROXY } from '../words';

/** Where the API is: above the page. */
export const ROOT = new URL('..', document.baseURI).pathname;

export class ApiError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly hint: string,
    readonly status: number,
    readonly retryAfterSeconds: number | null = null,
  ) {
    super(message);
  }

  /** The server may never have heard of it, or is about to come back. */
  get isPassing(): boolean {
    return this.status === 0 || ['API_RESTARTING', 'SUPERVISOR_STOPPING', 'SERVER_BUSY'].includes(this.code);
  }
}

/** Hears of every answer that says: sign in. */
let onSignedOut = () => {};
export function whenSignedOut(act: () => void): void {
  onSignedOut = act;
}

export interface Call {
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** The answer of `fetch`, where it is a good one. @throws ApiError */
export async function open(method: string, path: string, { body, headers = {}, signal }: Call = {}): Promise<Response> {
  const init: RequestInit = { method, headers: { ...headers } };
  if (signal) init.signal = signal;
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { ...headers, 'content-type': 'application/json' };
  }
  const response = await fetch(ROOT + path, init).catch((error: Error) => {
    if (error.name === 'AbortError') throw error;
    throw new ApiError('NETWORK', NETWORK.message, NETWORK.hint, 0);
  });
  if (response.ok) return response;
  const error = await errorOf(response);
  if (response.status === 401) onSignedOut();
  throw error;
}

/** @throws ApiError */
export async function call<T>(method: string, path: string, options: Call = {}): Promise<T> {
  const response = await open(method, path, options);
  if (response.status === 204) return undefined as T;
  return (await response.json().catch(() => {
    // Cut off on its way.
    throw new ApiError('NETWORK', NETWORK.message, NETWORK.hint, 0);
  })) as T;
}

async function errorOf(response: Response): Promise<ApiError> {
  const { status } = response;
  try {
    const { error } = (await response.json()) as { error: { code: string; message: string; hint: string } };
    const seconds = Number(response.headers.get('retry-after'));
    return new ApiError(error.code, error.message, error.hint, status, seconds > 0 ? seconds : null);
  } catch (cause) {
    // Something between us and the server has answered: a proxy, while the server is away, or of its own accord.
    console.info(`an answer that is none of ours: ${(cause as Error).message}`);
    const isAway = status >= 502 && status <= 504;
    if (isAway) return new ApiError('NETWORK', NETWORK.message, NETWORK.hint, 0);
    return new ApiError(`HTTP_${status}`, PROXY.message(status), PROXY.hint, status);
  }
}
