/** The system as a whole: how it is, what a page shows first, its processes, and what Prometheus reads. */
import { follow, lastLines } from '@qwen-supervisor/files/log-follower';
import type { SnapshotAnswer } from '@qwen-supervisor/protocol/answers';
import { ROLES } from '@qwen-supervisor/protocol/api-keys';
import { logFile } from '@qwen-supervisor/protocol/data-files';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { type Histogram, METRICS_CONTENT_TYPE } from '@qwen-supervisor/protocol/metrics';
import { z } from 'zod';
import { roleOf } from '../access/access.js';
import type { Backend } from '../backend.js';
import { answers } from '../contract/dialect-errors.js';
import {
  type App,
  childNameSchema,
  crashSchema,
  eventStreamSchema,
  jobSchema,
  modelSchema,
  okSchema,
  statusSchema,
} from '../contract/schemas.js';
import { EventStream, idOf } from '../event-stream.js';
import { modelAnswer } from './model-routes.js';

const snapshotSchema = z.object({
  version: z.string(),
  serverTime: z.string(),
  lastEventId: z.string(),
  role: z.enum(ROLES),
  status: statusSchema,
  models: z.array(modelSchema),
  running: z.array(jobSchema).describe('Those in the hands of workers, the one first that was begun first'),
  previews: z.record(z.string(), z.string()).describe('Of running jobs, by their id: PNG, base64'),
  queue: z.array(jobSchema).describe('In the order in which they will be drawn; the first fifty'),
  ended: z.array(jobSchema).describe('The last that have ended, newest first'),
  crashes: z.array(crashSchema),
}) satisfies z.ZodType<SnapshotAnswer>;

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
          200: snapshotSchema,
        }),
      },
    },
    async ({ caller }) => {
      const { lastSeq, previews, ...snapshot } = await link.request('snapshot', {});
      const { version, run } = backend.welcome;
      return {
        version,
        serverTime: new Date().toISOString(),
        lastEventId: idOf({ run, seq: lastSeq }),
        role: roleOf(caller),
        models: [modelAnswer(backend, snapshot.status.model.state)],
        ...snapshot,
        previews: Object.fromEntries(
          Object.entries(previews).map(([id, png]) => [id, Buffer.from(png).toString('base64')]),
        ),
      };
    },
  );

  app.post(
    '/api/v1/supervisor/restart',
    {
      config: { access: 'admin' },
      schema: {
        tags,
        summary: 'Start a process anew; a running job keeps its step. Needs an admin key',
        body: z.strictObject({ child: childNameSchema }),
        response: answers({ 202: okSchema }, 'BODY_INVALID', 'ADMIN_ONLY'),
      },
    },
    async (request, reply) => reply.status(202).send(await link.request('restart', { name: request.body.child })),
  );

  app.get(
    '/api/v1/logs',
    {
      exposeHeadRoute: false,
      schema: {
        tags,
        summary: 'The log of supervisor and processes as it grows. Where keys are asked for it needs an admin key',
        description: 'Server-sent events `line`, each a record of the log, first the last ones.',
        querystring: z.object({ lines: z.coerce.number().int().min(0).max(5000).default(500) }),
        response: answers({ 200: eventStreamSchema }, 'ADMIN_ONLY'),
      },
    },
    async ({ caller, query }, reply) => {
      if (caller.kind === 'known' && roleOf(caller) !== 'admin') throw new CodedError('ADMIN_ONLY');
      const file = logFile(backend.welcome.dataDir);
      const { lines, at } = await lastLines(file, query.lines);
      let stop = () => {};
      const stream = new EventStream(reply, () => stop());
      const tell = (line: string) => {
        const record = recordOf(line);
        if (record) stream.send('line', record);
      };
      for (const line of lines) tell(line);
      try {
        stop = follow(file, at, tell, () => stream.end());
      } catch (error) {
        // The system watches only so many files. What there was has been told.
        console.error(`the log cannot be followed: ${(error as Error).message}`);
        stream.end();
      }
    },
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

/** A line that a full disk has cut off is no record. */
function recordOf(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}
