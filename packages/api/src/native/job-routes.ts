/** The native API: jobs. */
import { JOB_SOURCES, JOB_STATUSES } from '@qwen-supervisor/protocol/job';
import { jobMoveSchema, jobRequestSchema } from '@qwen-supervisor/protocol/job-request';
import { z } from 'zod';
import type { Backend } from '../backend.js';
import { answers, SUBMIT_ERRORS } from '../contract/dialect-errors.js';
import { type App, byId, jobSchema, jobsSchema } from '../contract/schemas.js';
import { idempotencyOf, ownerOf, submit, toOrders } from '../orders.js';

/** Jobs of one page, and of one group. */
const PAGE_MAX = 100;

const listSchema = z.object({
  status: z.enum(JOB_STATUSES).optional(),
  source: z.enum(JOB_SOURCES).optional(),
  group: z.string().max(100).optional(),
  ids: z.string().max(10_000).optional().describe('Only these, separated by commas'),
  cursor: z.coerce.number().int().min(1).optional().describe('`next` of the page before'),
  limit: z.coerce.number().int().min(1).max(PAGE_MAX).default(PAGE_MAX),
});

const groupSchema = z.strictObject({ jobs: z.array(jobRequestSchema).min(1).max(PAGE_MAX) });

const cancelSchema = z.discriminatedUnion('scope', [
  z.strictObject({ scope: z.literal('running') }),
  z.strictObject({ scope: z.literal('queued') }),
  z.strictObject({ scope: z.literal('group'), group: z.string() }),
]);

export function jobRoutes(app: App, backend: Backend): void {
  const { link } = backend;
  const tags = ['jobs'];
  /** Requests that bring a picture are as large as pictures are. */
  const bodyLimit = backend.settings.maxUploadBytes;

  app.post(
    '/api/v1/jobs',
    {
      bodyLimit,
      schema: {
        tags,
        summary: 'Ask for a picture',
        description:
          'The job is on the disk when it is acknowledged. With the header Idempotency-Key a request can be repeated safely.',
        body: jobRequestSchema,
        response: answers({ 202: jobSchema }, ...SUBMIT_ERRORS),
      },
    },
    async (request, reply) => {
      const orders = await toOrders(backend, request.body, { source: 'api' });
      const [job] = await submit(backend, request, reply, orders);
      return reply.status(202).send(job);
    },
  );

  app.post(
    '/api/v1/groups',
    {
      bodyLimit,
      schema: {
        tags,
        summary: 'Ask for several pictures at once: all are accepted, or none',
        body: groupSchema,
        response: answers(
          { 202: z.object({ group: z.string().nullable(), jobs: z.array(jobSchema) }) },
          ...SUBMIT_ERRORS,
        ),
      },
    },
    async (request, reply) => {
      const orders = [];
      for (const fields of request.body.jobs) orders.push(...(await toOrders(backend, fields, { source: 'api' })));
      const jobs = await submit(backend, request, reply, orders);
      return reply.status(202).send({ group: jobs[0]?.group ?? null, jobs });
    },
  );

  app.get(
    '/api/v1/jobs',
    {
      schema: {
        tags,
        summary: 'Jobs, newest first, a page at a time',
        querystring: listSchema,
        response: answers({ 200: jobsSchema.extend({ next: z.int().nullable() }) }),
      },
    },
    async ({ query }) => {
      const { status = null, source = null, group = null, cursor = null, limit } = query;
      const ids = query.ids?.split(',') ?? null;
      return link.request('listJobs', { filter: { status, source, group, ids }, cursor, limit });
    },
  );

  app.post(
    '/api/v1/jobs/cancel',
    {
      schema: {
        tags,
        summary: 'Cancel the running job, all that wait, or a group',
        body: cancelSchema,
        response: answers({ 200: z.object({ cancelled: z.int() }) }, 'BODY_INVALID', 'DISK_FULL'),
      },
    },
    (request) => link.request('cancelJobs', request.body),
  );

  app.get(
    '/api/v1/jobs/:id',
    { schema: { tags, summary: 'A job', params: byId, response: answers({ 200: jobSchema }, 'JOB_NOT_FOUND') } },
    (request) => link.request('getJob', { id: request.params.id }),
  );

  app.patch(
    '/api/v1/jobs/:id',
    {
      schema: {
        tags,
        summary: 'Change the place of a queued job',
        params: byId,
        body: jobMoveSchema,
        response: answers({ 200: jobSchema }, 'BODY_INVALID', 'JOB_NOT_FOUND', 'JOB_NOT_QUEUED', 'DISK_FULL'),
      },
    },
    ({ params: { id }, body: { priority = null, before = null } }) => link.request('moveJob', { id, priority, before }),
  );

  app.delete(
    '/api/v1/jobs/:id',
    {
      schema: {
        tags,
        summary: 'Forget a job that has ended, with its picture',
        params: byId,
        response: answers({ 204: z.void() }, 'JOB_NOT_FOUND', 'JOB_NOT_ENDED', 'DISK_FULL'),
      },
    },
    async (request, reply) => {
      await link.request('removeJob', { id: request.params.id });
      return reply.status(204).send();
    },
  );

  app.post(
    '/api/v1/jobs/:id/cancel',
    {
      schema: {
        tags,
        summary: 'Cancel a job; a running one ends within a step',
        params: byId,
        response: answers({ 200: jobSchema }, 'JOB_NOT_FOUND', 'DISK_FULL'),
      },
    },
    (request) => link.request('cancelJob', { id: request.params.id, ifQueued: false }),
  );

  app.post(
    '/api/v1/jobs/:id/interrupt',
    {
      schema: {
        tags,
        summary: 'End a running job with the picture that it has reached; a queued one is cancelled',
        params: byId,
        response: answers({ 200: jobSchema }, 'JOB_NOT_FOUND', 'DISK_FULL'),
      },
    },
    (request) => link.request('interruptJob', { id: request.params.id }),
  );

  app.post(
    '/api/v1/jobs/:id/retry',
    {
      schema: {
        tags,
        summary: 'A new job with the request of one that failed or was cancelled',
        params: byId,
        response: answers(
          { 202: jobSchema },
          'JOB_NOT_FOUND',
          'JOB_NOT_RETRYABLE',
          'IDEMPOTENCY_KEY_REUSED',
          'QUEUE_FULL',
          'DISK_FULL',
          'WORKER_FAILED',
        ),
      },
    },
    async (request, reply) =>
      reply.status(202).send(
        await link.request('retryJob', {
          id: request.params.id,
          idempotency: idempotencyOf(request),
          owner: ownerOf(request),
        }),
      ),
  );
}
