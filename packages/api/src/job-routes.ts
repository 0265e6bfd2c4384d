/** The native API: jobs, their events, their pictures. */
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { describeIssues, isTerminal, JOB_STATUSES, type JobEvent, parseJobOrder } from '@qwen-supervisor/protocol/job';
import { drawSeed } from '@qwen-supervisor/protocol/seed';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Backend } from './backend.js';
import { idempotencyOf } from './idempotency.js';
import { toServerSentEvent } from './server-sent-events.js';

const listSchema = z.strictObject({
  status: z.enum(JOB_STATUSES).optional(),
  limit: z.coerce.number().int().min(1).max(100).default(100),
});

/** A comment line on an idle event stream, so that proxies and clients see that it lives. */
const HEARTBEAT_MS = 15_000;

type ById = { Params: { id: string } };

export function jobRoutes(app: FastifyInstance, backend: Backend): void {
  const { link } = backend;

  app.post('/api/v1/jobs', async (request, reply) => {
    const order = parseJobOrder(request.body, backend.welcome.defaults, backend.welcome.limits, drawSeed);
    const { jobs, replayed } = await link.request('submitJobs', {
      orders: [order],
      idempotency: idempotencyOf(request),
    });
    if (replayed) reply.header('idempotent-replayed', 'true');
    return reply.status(202).send(jobs[0]);
  });

  app.get('/api/v1/jobs', async (request) => {
    const query = listSchema.safeParse(request.query);
    if (!query.success) throw new CodedError('REQUEST_INVALID', describeIssues(query.error));
    return link.request('listJobs', { status: query.data.status ?? null, limit: query.data.limit });
  });

  app.get<ById>('/api/v1/jobs/:id', (request) => link.request('getJob', { id: request.params.id }));

  app.post<ById>('/api/v1/jobs/:id/cancel', (request) => link.request('cancelJob', { id: request.params.id }));

  app.post<ById>('/api/v1/jobs/:id/retry', async (request, reply) =>
    reply
      .status(202)
      .send(await link.request('retryJob', { id: request.params.id, idempotency: idempotencyOf(request) })),
  );

  /** First the job as it is, then what happens to it, until it ends. */
  app.get<ById>('/api/v1/jobs/:id/events', { exposeHeadRoute: false }, async (request, reply) => {
    const { id } = request.params;
    await link.request('getJob', { id });
    reply.hijack();
    const stream = reply.raw;
    stream.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    const send = (event: string, data: unknown) => stream.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
    const tell = (event: JobEvent) => {
      const { name, data } = toServerSentEvent(event);
      send(name, data);
      if ('job' in event && isTerminal(event.job.status)) stream.end();
    };
    let early: JobEvent[] | null = [];
    const stop = backend.listen(id, (event) => (early ? early.push(event) : tell(event)));
    const heartbeat = setInterval(() => stream.write(': alive\n\n'), HEARTBEAT_MS);
    stream.on('close', () => {
      clearInterval(heartbeat);
      stop();
    });
    // Asked for only now that we listen, and sent before what was heard meanwhile: nothing can fall between.
    const job = await link.request('getJob', { id });
    send('job', job);
    const heard = early;
    early = null;
    if (isTerminal(job.status)) {
      send(job.status, job);
      stream.end();
    } else for (const event of heard) tell(event);
  });

  app.get<ById>('/api/v1/images/:id', async (request, reply) => {
    const { file, sha256 } = await link.request('findImage', { id: request.params.id });
    reply
      .header('content-type', 'image/png')
      .header('etag', `"${sha256}"`)
      .header('cache-control', 'private, immutable');
    if (request.headers['if-none-match'] === `"${sha256}"`) return reply.status(304).send();
    try {
      const handle = await open(join(backend.welcome.dataDir, file));
      const { size } = await handle.stat();
      return reply.header('content-length', size).send(createReadStream('', { fd: handle }));
    } catch (cause) {
      throw new CodedError('IMAGE_NOT_FOUND', 'the file of this picture is gone', { cause });
    }
  });
}
