/** What happens, as it happens: to one job, or to everything. A listener that comes back goes on where it was. */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { NumberedEvent } from '@qwen-supervisor/protocol/events';
import { isTerminal, type Job } from '@qwen-supervisor/protocol/job';
import type { FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Backend } from '../backend.js';
import { answers } from '../contract/dialect-errors.js';
import { type App, byId, eventStreamSchema } from '../contract/schemas.js';
import { EventStream, formatEvent, idOf, seqOf, toBytes } from '../event-stream.js';

/** Between the end of a job and the event that tells of it lies less. */
const END_TOLD_MS = 60_000;

const cursorSchema = z.object({
  lastEventId: z.string().max(100).optional().describe('As the header Last-Event-ID: go on after this event'),
});

export function eventRoutes(app: App, backend: Backend): void {
  app.get(
    '/api/v1/events',
    {
      exposeHeadRoute: false,
      schema: {
        tags: ['events'],
        summary: 'All events, from now on or after the last one that was read',
        description:
          'Server-sent events: queued, moved, running, step, decoding, image, done, failed, cancelled and requeued of jobs, loading, child and crash of the system, pictures when finished ones are starred, thrown away, taken back or removed, machines when one of those that share the queue has changed, and reset where the last event that was read is too old: read the snapshot again.',
        querystring: cursorSchema,
        response: answers({ 200: eventStreamSchema }, 'REQUEST_INVALID'),
      },
    },
    (request, reply) => {
      const cursor = cursorOf(request);
      const stream = new EventStream(reply, () => stop());
      const missed = cursor === null ? [] : missedSince(backend, cursor);
      if (missed === null) stream.write(reset(backend));
      for (const event of missed ?? []) stream.write(toBytes(event));
      const stop = backend.listen(
        (event) => stream.write(toBytes(event)),
        () => stream.write(reset(backend)),
      );
    },
  );

  /** First the job as it is, unless the listener comes back; then what happens to it, until it ends. */
  app.get(
    '/api/v1/jobs/:id/events',
    {
      exposeHeadRoute: false,
      schema: {
        tags: ['events'],
        summary: 'The events of a job until it has ended',
        description:
          'Begins with the event job, the job as it is; while the model loads, loading comes in between. 204 tells an EventSource that has read the end not to come back.',
        params: byId,
        querystring: cursorSchema,
        response: answers({ 200: eventStreamSchema, 204: z.void() }, 'REQUEST_INVALID', 'JOB_NOT_FOUND'),
      },
    },
    async (request, reply) => {
      const { id } = request.params;
      const { link, ring } = backend;
      // What happens from here on is kept until the job is known: nothing can fall between.
      const early: NumberedEvent[] = [];
      const before = newestId(backend);
      let tell = (event: NumberedEvent) => void early.push(event);
      let missedSome = () => {};
      const unlisten = backend.listen(
        (event) => {
          if (isOf(event, id) || event.type === 'load') tell(event);
        },
        () => missedSome(),
      );
      const job = await link.request('getJob', { id }).catch((error) => {
        unlisten();
        throw error;
      });
      const cursor = cursorOf(request);
      const since = cursor === null ? null : missedSince(backend, cursor);
      const story = storyOf(job, since?.filter((event) => isOf(event, id)) ?? null, early, ring.all(), Date.now());
      if (story === 'told') {
        unlisten();
        return reply.status(204).send();
      }
      const stream = new EventStream(reply, unlisten);
      const endWith = (last: Job) => {
        stream.write(toBytes(endOf(last, backend)));
        stream.end();
      };
      if (story.asItIs) stream.write(formatEvent('job', job, before));
      for (const event of story.events) stream.write(toBytes(event));
      if (story.end === 'heard') return stream.end();
      if (story.end === 'to tell') return endWith(job);
      tell = (event) => {
        stream.write(toBytes(event));
        if (isEnd(event)) stream.end();
      };
      missedSome = () =>
        void link.request('getJob', { id }).then(
          (now) => {
            stream.write(formatEvent('job', now, newestId(backend)));
            if (isTerminal(now.status)) endWith(now);
          },
          () => stream.end(),
        );
    },
  );
}

/** What a listener is told of a job at once. */
interface Story {
  /** First the job as it is. */
  asItIs: boolean;
  events: NumberedEvent[];
  /** Whether the end is among them, or is still to be told, or has not come. */
  end: 'heard' | 'to tell' | null;
}

/**
 * What a listener is told that comes to a job. `missed`: the job's events since it was here last, null where it is new
 * or that is not known any more; `early`: those that came while the job was looked up. `told`: it has heard the end,
 * and a browser, which comes back whenever a stream ends, is sent home. Pure.
 */
export function storyOf(
  job: Job,
  missed: readonly NumberedEvent[] | null,
  early: readonly NumberedEvent[],
  known: readonly NumberedEvent[],
  nowMs: number,
): Story | 'told' {
  if (missed?.length === 0 && hasToldEnd(job, known, nowMs)) return 'told';
  const before = missed ?? [];
  // The job knows its steps.
  const since = early.filter((event) => event.type !== 'step' && !before.includes(event));
  const events = isTerminal(job.status) ? [...before] : [...before, ...since];
  const end = events.some(isEnd) ? 'heard' : isTerminal(job.status) ? 'to tell' : null;
  return { asItIs: missed === null, events, end };
}

function isOf(event: NumberedEvent, jobId: string): boolean {
  return 'jobId' in event && event.jobId === jobId;
}

function isEnd(event: NumberedEvent): boolean {
  return 'job' in event && isTerminal(event.job.status);
}

/** Whether the end of a job has been told to all who listened: a job has ended a little before that. */
function hasToldEnd(job: Job, known: readonly NumberedEvent[], nowMs: number): boolean {
  if (!isTerminal(job.status)) return false;
  const isOld = nowMs - Date.parse(job.finishedAt ?? job.createdAt) > END_TOLD_MS;
  return isOld || known.some((event) => isOf(event, job.id) && isEnd(event));
}

/** The event that told of the end, for those who come after it. */
function endOf(job: Job, { ring, welcome }: Backend): NumberedEvent {
  const type = job.status as 'done' | 'failed' | 'cancelled';
  const seq = ring.all().at(-1)?.seq ?? 0;
  return { type, jobId: job.id, job, run: welcome.run, seq, at: job.finishedAt ?? job.createdAt };
}

/** Null where none was given. @throws CodedError REQUEST_INVALID */
function cursorOf({ headers, query }: FastifyRequest): string | null {
  // A browser sends the header when it comes back, with the same query as before.
  const id = headers['last-event-id'] ?? (query as z.output<typeof cursorSchema>).lastEventId ?? null;
  if (Array.isArray(id)) throw new CodedError('REQUEST_INVALID', 'Last-Event-ID: only one');
  return id;
}

/** Null where it is not known any more what was missed. */
function missedSince({ ring, welcome }: Backend, id: string): NumberedEvent[] | null {
  const seq = seqOf(id, welcome.run);
  return seq === null ? null : ring.after(seq);
}

function reset(backend: Backend): string {
  const lastEventId = newestId(backend);
  return formatEvent('reset', { lastEventId }, lastEventId);
}

function newestId({ ring, welcome }: Backend): string {
  return idOf({ run: welcome.run, seq: ring.all().at(-1)?.seq ?? 0 });
}
