/**
 * Who may call: pages and hosts that are trusted, API keys, roles, and how many requests a key may send.
 *
 * A request is identified first, then counted, then let in or refused, so that guessing keys is counted, too. A route
 * says in its `config` what it needs; what says nothing needs a key.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import rateLimit from '@fastify/rate-limit';
import type { ApiKey, Role } from '@qwen-supervisor/protocol/api-keys';
import { CodedError, type ErrorCode } from '@qwen-supervisor/protocol/errors';
import type { AccessSettings } from '@qwen-supervisor/protocol/messages';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { ALWAYS } from './connections.js';
import type { EndedSessions } from './ended-sessions.js';
import { isSameOrigin, refuseForeign } from './origins.js';
import { keyOfSession, keyOfSignedUrl, sessionOf } from './signatures.js';

export type Access = 'public' | Role;

/** `open`: no keys are asked for. `known`: who has this key. `stranger`: not let in, for `refusal`. */
type Caller = { /** Who is counted: a digest of the key, or the address of one that has none. */ name: string } & (
  | { kind: 'open' }
  /** `by`: what it brought. */
  | { kind: 'known'; key: ApiKey; by: 'key' | 'session' | 'signature' }
  | { kind: 'stranger'; refusal: ErrorCode }
);

declare module 'fastify' {
  interface FastifyContextConfig {
    access?: Access;
    /** Answers with a picture, which pages elsewhere may show: who has its address may see it. */
    isPicture?: boolean;
  }
  interface FastifyRequest {
    caller: Caller;
  }
}

interface Guarded {
  settings: AccessSettings;
  keys: readonly ApiKey[];
  endedSessions: EndedSessions;
}

/** What a page of another origin may read of our answers. */
const EXPOSED = 'etag, idempotent-replayed, retry-after, x-job-id, x-request-id, x-seed';

export async function guard(app: FastifyInstance, { settings, keys, endedSessions }: Guarded): Promise<void> {
  app.decorateRequest('caller');
  await app.register(rateLimit, { global: false });
  const { requestsPerMinute: max } = settings;
  const keyGenerator = ({ caller }: FastifyRequest) => caller.name;
  const count = keys.length > 0 && max !== null ? app.createRateLimit({ max, timeWindow: 60_000, keyGenerator }) : null;
  app.addHook('onRequest', async (request, reply) => {
    const { headers, method, routeOptions } = request;
    const { access = 'use', isPicture = false } = routeOptions.config;
    reply.headers({
      ...ALWAYS,
      'x-request-id': request.id,
      'cross-origin-resource-policy': isPicture ? 'cross-origin' : 'same-origin',
      // Of every answer: what a browser keeps of one without an origin is of no use to one with.
      vary: 'origin',
    });
    request.caller = identify(request, keys, endedSessions);
    // Before anything is said: a guess is a guess, whatever else is wrong with it.
    if (count) refuseTooMany(await count(request));
    const hasKey = request.caller.kind === 'known' && request.caller.by === 'key';
    refuseForeign({ headers, method, hasKey, isPicture }, settings);
    setCorsHeaders(request, reply);
    // A preflight carries no key, and who only asks what is there does not either.
    if (method === 'OPTIONS') return reply.status(204).header('allow', METHODS).send();
    const { caller } = request;
    if (access === 'public') return;
    if (caller.kind === 'stranger') {
      // A place is not kept for who may not come in.
      reply.header('connection', 'close');
      // Not Basic, which is taken, too: browsers would ask for a name and a password before the page can.
      reply.header('www-authenticate', 'Bearer realm="qwen-supervisor"');
      throw new CodedError(caller.refusal);
    }
    if (access === 'admin' && roleOf(caller) !== 'admin') throw new CodedError('ADMIN_ONLY');
  });
}

/** @throws CodedError TOO_MANY_REQUESTS */
function refuseTooMany(counted: Awaited<ReturnType<ReturnType<FastifyInstance['createRateLimit']>>>): void {
  if (counted.isAllowed || !counted.isExceeded) return;
  throw new CodedError('TOO_MANY_REQUESTS', undefined, { retryAfterSeconds: counted.ttlInSeconds });
}

const METHODS = 'GET, HEAD, POST, PATCH, DELETE, OPTIONS';

function setCorsHeaders({ headers }: FastifyRequest, reply: FastifyReply): void {
  if (headers.origin === undefined) return;
  reply.headers({
    'access-control-allow-origin': headers.origin,
    'access-control-expose-headers': EXPOSED,
  });
  if (headers['access-control-request-method'] === undefined) return;
  reply.headers({
    'access-control-allow-methods': METHODS,
    'access-control-allow-headers': headers['access-control-request-headers'] ?? '',
    'access-control-max-age': '600',
  });
}

/** What a caller may do; null for a stranger. */
export function roleOf(caller: Caller): Role | null {
  if (caller.kind === 'known') return caller.key.role;
  return caller.kind === 'open' ? 'use' : null;
}

function identify({ headers, ip, url }: FastifyRequest, keys: readonly ApiKey[], endedSessions: EndedSessions): Caller {
  // Without keys whatever clients send by habit is ignored.
  if (keys.length === 0) return { kind: 'open', name: '' };
  const known = (key: ApiKey, by: 'key' | 'session' | 'signature'): Caller => {
    return { kind: 'known', name: digest(key.key).toString('hex'), key, by };
  };
  const sent = keyOf(headers.authorization);
  const byKey = sent === null ? null : findKey(sent, keys);
  if (byKey) return known(byKey, 'key');
  // A proxy may have put an Authorization of its own before the cookie of a page.
  const session = isSameOrigin(headers) ? sessionOf(headers.cookie) : null;
  const bySession = session === null || endedSessions.has(session) ? null : keyOfSession(session, keys);
  if (bySession) return known(bySession, 'session');
  const bySignature = keyOfSignedUrl(url, keys);
  if (bySignature) return known(bySignature, 'signature');
  return { kind: 'stranger', name: ip, refusal: sent === null ? 'KEY_MISSING' : 'KEY_REFUSED' };
}

/** Compares with all keys, each in constant time: how long it takes tells nothing. */
export function findKey(sent: string, keys: readonly ApiKey[]): ApiKey | null {
  const sentDigest = digest(sent);
  let found: ApiKey | null = null;
  for (const known of keys) if (timingSafeEqual(digest(known.key), sentDigest)) found = known;
  return found;
}

/** Of `Bearer KEY`, or the password of `Basic`, as clients of A1111 send it. Null without either. */
function keyOf(authorization: string | undefined): string | null {
  const [, scheme, credentials] = /^(bearer|basic)\s+(.+)$/i.exec(authorization ?? '') ?? [];
  if (scheme === undefined || credentials === undefined) return null;
  if (scheme.toLowerCase() === 'bearer') return credentials.trim();
  const decoded = Buffer.from(credentials, 'base64').toString('utf8');
  return decoded.slice(decoded.indexOf(':') + 1);
}

function digest(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}
