/**
 * Who may call: pages and hosts that are trusted, API keys, roles, and how many requests a key may send.
 *
 * A request is identified first, then counted, then let in or refused, so that guessing keys is counted, too. A route
 * says in its `config` what it needs; what says nothing needs a key.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';
import rateLimit from '@fastify/rate-limit';
import type { ApiKey, Role } from '@qwen-supervisor/protocol/api-keys';
import { CodedError, type ErrorCode } from '@qwen-supervisor/protocol/errors';
import type { AccessSettings } from '@qwen-supervisor/protocol/messages';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { ALWAYS } from './connections.js';
import { keyOfSession, keyOfSignedUrl } from './signatures.js';

export type Access = 'public' | Role;

/** `open`: no keys are asked for. `known`: who has this key. `stranger`: not let in, for `refusal`. */
type Caller = { /** Who is counted: a digest of the key, or the address of one that has none. */ name: string } & (
  | { kind: 'open' }
  | { kind: 'known'; key: ApiKey }
  | { kind: 'stranger'; refusal: ErrorCode }
);

declare module 'fastify' {
  interface FastifyContextConfig {
    access?: Access;
  }
  interface FastifyRequest {
    caller: Caller;
  }
}

const LOOPBACK = /^(localhost|.+\.localhost|127(\.\d{1,3}){3}|\[::1\])$/;
/** What a page of another origin may read of our answers. */
const EXPOSED = 'etag, idempotent-replayed, retry-after, x-job-id, x-seed';

export async function guard(app: FastifyInstance, settings: AccessSettings, keys: readonly ApiKey[]): Promise<void> {
  app.decorateRequest('caller');
  await app.register(rateLimit, { global: false });
  const { requestsPerMinute: max } = settings;
  const keyGenerator = ({ caller }: FastifyRequest) => caller.name;
  const count = keys.length > 0 && max !== null ? app.createRateLimit({ max, timeWindow: 60_000, keyGenerator }) : null;
  app.addHook('onRequest', async (request, reply) => {
    refuseStrangeHostOrOrigin(request.headers, settings);
    setHeaders(request, reply, settings);
    // A preflight carries no key, and who only asks what is there does not either.
    if (request.method === 'OPTIONS') return reply.status(204).header('allow', METHODS).send();
    request.caller = identify(request, keys);
    if (count) refuseTooMany(await count(request));
    const { caller, routeOptions } = request;
    const access = routeOptions.config.access ?? 'use';
    if (access === 'public') return;
    if (caller.kind === 'stranger') {
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

/**
 * A page of another site may send requests to loopback, and a name that it controls may lead here (DNS rebinding). An
 * address cannot be such a name.
 * @throws CodedError ORIGIN_REFUSED
 */
function refuseStrangeHostOrOrigin({ host, origin }: IncomingHttpHeaders, settings: AccessSettings): void {
  if (host !== undefined && !isOurHost(host, settings))
    throw new CodedError('ORIGIN_REFUSED', `refused: ${host.slice(0, 200)} is not a name of this server`);
  if (
    origin !== undefined &&
    origin !== `http://${host}` &&
    origin !== `https://${host}` &&
    !isTrusted(origin, settings)
  )
    throw new CodedError('ORIGIN_REFUSED', `refused: pages of ${origin.slice(0, 200)} may not call this server`);
}

function isOurHost(host: string, { allowHosts }: AccessSettings): boolean {
  const name = hostnameOf(`http://${host}`);
  return (
    name !== null && (LOOPBACK.test(name) || isIP(name.replace(/^\[|\]$/g, '')) !== 0 || allowHosts.includes(name))
  );
}

function isTrusted(origin: string, { allowOrigins }: AccessSettings): boolean {
  const name = hostnameOf(origin);
  return name !== null && (LOOPBACK.test(name) || allowOrigins.includes(origin));
}

function hostnameOf(url: string): string | null {
  return URL.canParse(url) ? new URL(url).hostname : null;
}

const METHODS = 'GET, HEAD, POST, PATCH, DELETE, OPTIONS';

function setHeaders({ headers }: FastifyRequest, reply: FastifyReply, { allowOrigins }: AccessSettings): void {
  reply.headers({
    ...ALWAYS,
    // Pages elsewhere do not show our pictures, unless they may call us.
    'cross-origin-resource-policy': allowOrigins.length > 0 ? 'cross-origin' : 'same-site',
    // Of every answer: what a browser keeps of one without an origin is of no use to one with.
    vary: 'origin',
  });
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

function identify({ headers, ip, url }: FastifyRequest, keys: readonly ApiKey[]): Caller {
  // Without keys whatever clients send by habit is ignored.
  if (keys.length === 0) return { kind: 'open', name: '' };
  const sent = keyOf(headers.authorization);
  // A proxy may have put an Authorization of its own before the cookie of a page.
  const key =
    (sent === null ? null : findKey(sent, keys)) ?? keyOfSession(headers.cookie, keys) ?? keyOfSignedUrl(url, keys);
  if (key) return { kind: 'known', name: digest(key.key).toString('hex'), key };
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
