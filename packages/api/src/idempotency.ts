/**
 * The header `Idempotency-Key`: a client that did not get its answer repeats its request with the same key, and gets the
 * same jobs. Reference: IETF draft-ietf-httpapi-idempotency-key-header.
 */
import { createHash } from 'node:crypto';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Idempotency } from '@qwen-supervisor/protocol/job';
import type { FastifyRequest } from 'fastify';

const KEY = /^[\x21-\x7e]{1,255}$/;

/** Null without the header. @throws CodedError REQUEST_INVALID */
export function idempotencyOf({ headers, url, body }: FastifyRequest): Idempotency | null {
  const key = headers['idempotency-key'];
  if (key === undefined) return null;
  if (typeof key !== 'string' || !KEY.test(key)) {
    throw new CodedError('REQUEST_INVALID', 'Idempotency-Key: must have 1 to 255 visible ASCII characters');
  }
  // What the client sent, not what we made of it: a seed that was drawn differs every time.
  return {
    key,
    fingerprint: createHash('sha256')
      .update(`${url}\n${JSON.stringify(body)}`)
      .digest('hex'),
  };
}
