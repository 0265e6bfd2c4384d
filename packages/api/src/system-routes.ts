/** The system as a whole: how it is, what a page shows first, its model, its processes, and who is signed in. */
import { ROLES } from '@qwen-supervisor/protocol/api-keys';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { type Histogram, METRICS_CONTENT_TYPE } from '@qwen-supervisor/protocol/metrics';
import { CHILD_NAMES } from '@qwen-supervisor/protocol/status';
import { z } from 'zod';
import { findKey } from './access.js';
import type { Backend } from './backend.js';
import { answers } from './dialects.js';
import { idOf } from './event-stream.js';
import { type App, byId, crashSchema, jobSchema, modelSchema, statusSchema } from './schemas.js';
import { closeSession, openSession } from './session.js';

const okSchema = z.object({ ok: z.literal(true) });

export function systemRoutes(app: App, backend: Backend, http: Histogram): void {
  const { link } = backend;
  const tags = ['system'];

  app.get(
    '/api/v1/status',
    { schema: { tags, summary: 'Supervisor, processes, model and queue', response: answers({ 200: statusSchema }) } },
    () => link.request('status', {}),
  );

  app.get(
    '/api/v1/snapshot',
    {
      schema: {
        tags,
        summary: 'Everything that a page shows first; GET /api/v1/events?lastEventId= goes on from it without a hole',
        response: answers({
          200: z.object({
            version: z.string(),
            serverTime: z.string(),
            lastEventId: z.string(),
            role: z.enum(ROLES),
            status: statusSchema,
            models: z.array(modelSchema),
            running: jobSchema.nullable(),
            preview: z.string().nullable().describe('Of the running job: PNG, base64'),
            queue: z.array(jobSchema).describe('In the order in which they will be drawn; the first fifty'),
            crashes: z.array(crashSchema),
          }),
        }),
      },
    },
    async ({ caller }) => {
      const { lastSeq, preview, ...snapshot } = await link.request('snapshot', {});
      const { version, run } = backend.welcome;
      return {
        version,
        serverTime: new Date().toISOString(),
        lastEventId: idOf({ run, seq: lastSeq }),
        role: caller.role,
        models: [describeModel(backend, snapshot.status.model.state)],
        ...snapshot,
        preview: preview && Buffer.from(preview).toString('base64'),
      };
    },
  );

  app.get(
    '/api/v1/models',
    {
      schema: {
        tags: ['models'],
        summary: 'The models of this server',
        response: answers({ 200: z.object({ models: z.array(modelSchema) }) }),
      },
    },
    async () => {
      const { model } = await link.request('status', {});
      return { models: [describeModel(backend, model.state)] };
    },
  );

  const known = (id: string) => {
    if (id !== backend.welcome.model.id)
      throw new CodedError('MODEL_UNKNOWN', `there is no model '${id.slice(0, 100)}'`);
  };

  app.post(
    '/api/v1/models/:id/load',
    {
      schema: {
        tags: ['models'],
        summary: 'Load the model now; else the next job does',
        params: byId,
        response: answers({ 202: okSchema }, 'MODEL_UNKNOWN'),
      },
    },
    async (request, reply) => {
      known(request.params.id);
      return reply.status(202).send(await link.request('loadModel', {}));
    },
  );

  app.post(
    '/api/v1/models/:id/unload',
    {
      schema: {
        tags: ['models'],
        summary: "Give the model's memory back until a job wants it",
        params: byId,
        response: answers({ 202: okSchema }, 'MODEL_UNKNOWN', 'MODEL_IN_USE'),
      },
    },
    async (request, reply) => {
      known(request.params.id);
      return reply.status(202).send(await link.request('unloadModel', {}));
    },
  );

  app.post(
    '/api/v1/supervisor/restart',
    {
      config: { access: 'admin' },
      schema: {
        tags,
        summary: 'Start a process anew; a running job keeps its step. Needs an admin key',
        body: z.strictObject({ child: z.enum(CHILD_NAMES) }),
        response: answers({ 202: okSchema }, 'BODY_INVALID', 'ADMIN_ONLY'),
      },
    },
    async (request, reply) => reply.status(202).send(await link.request('restart', { name: request.body.child })),
  );

  app.get(
    '/api/v1/session',
    {
      config: { access: 'public' },
      schema: {
        tags,
        summary: 'Whether keys are asked for, and who is signed in',
        response: answers({ 200: z.object({ required: z.boolean(), role: z.enum(ROLES).nullable() }) }),
      },
    },
    async ({ caller }) => ({ required: backend.keys.length > 0, role: caller.role }),
  );

  app.post(
    '/api/v1/session',
    {
      config: { access: 'public' },
      schema: {
        tags,
        summary: 'Sign in: a cookie stands for the key from now on',
        body: z.strictObject({ key: z.string().max(1000) }),
        response: answers({ 200: z.object({ role: z.enum(ROLES) }) }, 'BODY_INVALID'),
      },
    },
    async (request, reply) => {
      // Without keys there is nothing to sign in to.
      if (backend.keys.length === 0) return { role: 'use' };
      const key = findKey(request.body.key, backend.keys);
      if (!key) throw new CodedError('KEY_REFUSED');
      return reply.header('set-cookie', openSession(key, Date.now())).send({ role: key.role });
    },
  );

  app.delete(
    '/api/v1/session',
    { config: { access: 'public' }, schema: { tags, summary: 'Sign out', response: answers({ 204: z.void() }) } },
    async (_request, reply) => reply.header('set-cookie', closeSession()).status(204).send(),
  );

  app.get(
    '/metrics',
    { schema: { tags, summary: 'For Prometheus', response: answers({ 200: z.string() }) } },
    async (_request, reply) => {
      const { text } = await link.request('metrics', {});
      return reply.header('content-type', METRICS_CONTENT_TYPE).send(text + http.text());
    },
  );
}

function describeModel({ welcome }: Backend, state: 'unloaded' | 'loading' | 'ready'): z.output<typeof modelSchema> {
  const { id, defaults, sizes } = welcome.model;
  return { id, state, defaults, sizes, limits: welcome.limits };
}
