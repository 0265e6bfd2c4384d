/** Signing in and out of a page. */
import { ROLES } from '@qwen-supervisor/protocol/api-keys';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { z } from 'zod';
import { findKey, roleOf } from '../access/access.js';
import type { EndedSessions } from '../access/ended-sessions.js';
import { closeSession, expiryOf, keyOfSession, openSession, sessionOf } from '../access/signatures.js';
import type { Backend } from '../backend.js';
import { answers } from '../contract/dialect-errors.js';
import type { App } from '../contract/schemas.js';

export function sessionRoutes(app: App, { keys }: Backend, endedSessions: EndedSessions): void {
  const config = { access: 'public' } as const;
  const tags = ['system'];

  app.get(
    '/api/v1/session',
    {
      config,
      schema: {
        tags,
        summary: 'Whether keys are asked for, and who is signed in',
        response: answers({ 200: z.object({ required: z.boolean(), role: z.enum(ROLES).nullable() }) }),
      },
    },
    async ({ caller }) => ({ required: keys.length > 0, role: roleOf(caller) }),
  );

  app.post(
    '/api/v1/session',
    {
      config,
      // Anybody may send one.
      bodyLimit: 4096,
      schema: {
        tags,
        summary: 'Sign in: a cookie stands for the key from now on',
        body: z.strictObject({ key: z.string().max(1000) }),
        response: answers({ 200: z.object({ role: z.enum(ROLES) }) }, 'BODY_INVALID'),
      },
    },
    async (request, reply) => {
      // Without keys there is nothing to sign in to.
      if (keys.length === 0) return { role: 'use' };
      const key = findKey(request.body.key, keys);
      if (!key) throw new CodedError('KEY_REFUSED');
      return reply
        .header('set-cookie', openSession(key, Date.now(), request.protocol === 'https'))
        .send({ role: key.role });
    },
  );

  app.delete(
    '/api/v1/session',
    { config, schema: { tags, summary: 'Sign out', response: answers({ 204: z.void() }) } },
    async (request, reply) => {
      const session = sessionOf(request.headers.cookie);
      // One that was never ours needs no end.
      if (session !== null && keyOfSession(session, keys)) await endedSessions.end(session, expiryOf(session));
      return reply
        .header('set-cookie', closeSession(request.protocol === 'https'))
        .status(204)
        .send();
    },
  );
}
