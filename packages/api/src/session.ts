/**
 * Sessions of a page: `<img>` and EventSource send cookies, but no keys. The cookie is signed with the key that opened it, so
 * that no process has to remember it, and a key that is taken away takes its sessions along.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { ApiKey } from '@qwen-supervisor/protocol/api-keys';

const COOKIE = 'qwen_supervisor_session';
const LIFETIME_SECONDS = 30 * 86_400;

/** The `Set-Cookie` that opens a session. */
export function openSession({ key }: ApiKey, nowMs: number): string {
  const expires = Math.floor(nowMs / 1000) + LIFETIME_SECONDS;
  return cookie(`${expires}.${sign(key, expires)}`, LIFETIME_SECONDS);
}

/** The `Set-Cookie` that ends it. */
export function closeSession(): string {
  return cookie('', 0);
}

/** The key behind the session that a request brings, if it is still good. */
export function keyOfSession(
  header: string | undefined,
  keys: readonly ApiKey[],
  nowMs: number = Date.now(),
): ApiKey | null {
  const [, expires, signature] = new RegExp(`(?:^|;\\s*)${COOKIE}=(\\d+)\\.([\\w-]+)`).exec(header ?? '') ?? [];
  if (expires === undefined || signature === undefined || Number(expires) * 1000 < nowMs) return null;
  const sent = Buffer.from(signature);
  let found: ApiKey | null = null;
  for (const known of keys) {
    const expected = Buffer.from(sign(known.key, Number(expires)));
    if (sent.length === expected.length && timingSafeEqual(sent, expected)) found = known;
  }
  return found;
}

function sign(key: string, expires: number): string {
  return createHmac('sha256', key).update(`${COOKIE} ${expires}`).digest('base64url');
}

function cookie(value: string, maxAge: number): string {
  return `${COOKIE}=${value}; Path=/; Max-Age=${maxAge}; HttpOnly; SameSite=Strict`;
}
