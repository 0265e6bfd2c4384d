/**
 * What stands for a key where none can be sent: the cookie of a page, whose `<img>` and EventSource send no headers,
 * and the address of a picture in an answer. Both are signed with the key, so that no process has to remember them,
 * and a key that is taken away takes them along.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { ApiKey } from '@qwen-supervisor/protocol/api-keys';

const COOKIE = 'qwen_supervisor_session';
const LIFETIME_SECONDS = 30 * 86_400;
/** Of an address: as OpenAI's. */
const URL_SECONDS = 3600;

/** The `Set-Cookie` that opens a session. `secure`: the page came over https. */
export function openSession({ key }: ApiKey, nowMs: number, secure: boolean): string {
  const expires = Math.floor(nowMs / 1000) + LIFETIME_SECONDS;
  return cookie(`${expires}.${sign(key, COOKIE, expires)}`, LIFETIME_SECONDS, secure);
}

/** The `Set-Cookie` that ends it. */
export function closeSession(secure: boolean): string {
  return cookie('', 0, secure);
}

/** What the `Cookie` of a request says of a session; null where it has none. */
export function sessionOf(header: string | undefined): string | null {
  return new RegExp(`(?:^|;\\s*)${COOKIE}=([1-9]\\d{0,14}\\.[\\w-]{1,100})(?:;|$)`).exec(header ?? '')?.[1] ?? null;
}

/** When a session ends by itself, in milliseconds since 1970. */
export function expiryOf(session: string): number {
  return Number(session.split('.')[0]) * 1000;
}

/** The key behind a session, if it is still good. */
export function keyOfSession(session: string, keys: readonly ApiKey[], nowMs: number = Date.now()): ApiKey | null {
  const [expires, signature] = session.split('.');
  return signer(COOKIE, expires, signature, keys, nowMs);
}

/** The path of a picture, to be fetched without a key for an hour. */
export function signUrl(path: string, { key }: ApiKey, nowMs: number): string {
  const expires = Math.floor(nowMs / 1000) + URL_SECONDS;
  return `${path}?expires=${expires}&signature=${sign(key, path, expires)}`;
}

/** The key behind a signed address, if that is still good: it opens this one path. */
export function keyOfSignedUrl(url: string, keys: readonly ApiKey[], nowMs: number = Date.now()): ApiKey | null {
  const [, path, expires, signature] =
    /^(\/api\/v1\/images\/[\w-]+)\?(?:.*&)?expires=(\d+)&signature=([\w-]+)/.exec(url) ?? [];
  const key = path === undefined ? null : signer(path, expires, signature, keys, nowMs);
  return key && { ...key, role: 'use' };
}

/** Whose signature of `what` it is, unless it has run out. */
function signer(
  what: string,
  expires: string | undefined,
  signature: string | undefined,
  keys: readonly ApiKey[],
  nowMs: number,
): ApiKey | null {
  if (expires === undefined || signature === undefined || Number(expires) * 1000 < nowMs) return null;
  const sent = Buffer.from(signature);
  let found: ApiKey | null = null;
  for (const known of keys) {
    const expected = Buffer.from(sign(known.key, what, Number(expires)));
    if (sent.length === expected.length && timingSafeEqual(sent, expected)) found = known;
  }
  return found;
}

function sign(key: string, what: string, expires: number): string {
  return createHmac('sha256', key).update(`${what} ${expires}`).digest('base64url');
}

function cookie(value: string, maxAge: number, secure: boolean): string {
  const attributes = `Path=/; Max-Age=${maxAge}; HttpOnly; SameSite=Strict${secure ? '; Secure' : ''}`;
  return `${COOKIE}=${value}; ${attributes}`;
}
