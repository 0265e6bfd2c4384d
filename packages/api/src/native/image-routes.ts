/** Finished pictures. Their bytes never change, so that who has one need not fetch it again. */

import { requestOf } from '@qwen-supervisor/protocol/job-request';
import { infotext } from '@qwen-supervisor/protocol/picture-text';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Backend } from '../backend.js';
import { answers } from '../contract/dialect-errors.js';
import { type App, binarySchema, byId } from '../contract/schemas.js';
import {
  contentType,
  encodeAs,
  FORMATS,
  QUALITY_DEFAULT,
  readPicture,
  readThumbnail,
  streamPicture,
} from '../pictures/pictures.js';

/** Pictures of one page: neither the supervisor nor a client must stand still for a large collection. */
const PAGE = 1000;
const PAGE_MAX = 5000;

const formatSchema = z.object({
  format: z.enum(FORMATS).default('png'),
  quality: z.coerce.number().int().min(1).max(100).default(QUALITY_DEFAULT).describe('For jpeg and webp'),
  expires: z.string().optional().describe('Of an address that an answer has given: it needs no key'),
  signature: z.string().optional(),
});

const pageSchema = z.object({
  cursor: z.coerce.number().int().min(1).optional().describe('`next` of the page before'),
  limit: z.coerce.number().int().min(1).max(PAGE_MAX).default(PAGE),
});

const indexEntry = z.tuple([z.string(), z.int(), z.int(), z.number()]);

export function imageRoutes(app: App, backend: Backend): void {
  const tags = ['images'];

  app.get(
    '/api/v1/images',
    {
      schema: {
        tags,
        summary: 'Pictures, newest first, as short as can be, a page at a time',
        description: 'Each is [id, width, height, when it was made in milliseconds since 1970].',
        querystring: pageSchema,
        response: answers({ 200: z.object({ pictures: z.array(indexEntry), next: z.int().nullable() }) }),
      },
    },
    ({ query }) => backend.link.request('listPictures', { cursor: query.cursor ?? null, limit: query.limit }),
  );

  app.get(
    '/api/v1/images/:id',
    {
      config: { isPicture: true },
      schema: {
        tags,
        summary: 'A picture: the PNG as it was written, or as another format',
        params: byId,
        querystring: formatSchema,
        response: answers({ 200: binarySchema, 304: z.void() }, 'IMAGE_NOT_FOUND'),
      },
    },
    async (request, reply) => {
      const { format, quality } = request.query;
      const found = await backend.link.request('findImage', { id: request.params.id });
      const tag = format === 'png' ? found.sha256 : `${found.sha256}-${format}-${quality}`;
      if (isKnown(request, reply, tag)) return reply.status(304).send();
      reply.header('content-type', contentType(format));
      if (format !== 'png') return reply.send(await encodeAs(() => readPicture(backend, found), { format, quality }));
      const { size, stream } = await streamPicture(backend, found);
      return reply.header('content-length', size).send(stream);
    },
  );

  app.get(
    '/api/v1/images/:id/thumbnail',
    {
      config: { isPicture: true },
      schema: {
        tags,
        summary: 'A small WebP of a picture, 256 pixels at most',
        params: byId,
        response: answers({ 200: binarySchema, 304: z.void() }, 'IMAGE_NOT_FOUND'),
      },
    },
    async (request, reply) => {
      const found = await backend.link.request('findImage', { id: request.params.id });
      if (isKnown(request, reply, `${found.sha256}-thumbnail`)) return reply.status(304).send();
      return reply.header('content-type', contentType('webp')).send(await readThumbnail(backend, found));
    },
  );

  app.get(
    '/api/v1/images/:id/metadata',
    {
      schema: {
        tags,
        summary: 'How a picture was made',
        params: byId,
        response: answers({ 200: z.object({ id: z.string() }).loose() }, 'IMAGE_NOT_FOUND'),
      },
    },
    async (request) => {
      const { id } = request.params;
      const { sha256 } = await backend.link.request('findImage', { id });
      const job = await backend.link.request('getJob', { id });
      const { step, steps, createdAt, finishedAt } = job;
      const made = { step, steps, createdAt, finishedAt };
      return { id, sha256, request: requestOf(job), ...made, parameters: infotext(job, backend.welcome.model.id) };
    },
  );
}

/** Sets what caches go by; true where the client has the picture already. */
function isKnown({ headers }: FastifyRequest, reply: FastifyReply, tag: string): boolean {
  const etag = `"${tag}"`;
  reply.header('etag', etag).header('cache-control', 'private, max-age=31536000, immutable');
  const known = headers['if-none-match'] ?? '';
  return known === '*' || known.split(',').some((one) => one.trim().replace(/^W\//, '') === etag);
}
