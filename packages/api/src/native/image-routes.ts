/** Finished pictures. Their bytes never change, so that who has one need not fetch it again. */

import { THUMBNAIL_SIDES } from '@qwen-supervisor/protocol/data-files';
import { requestOf } from '@qwen-supervisor/protocol/job-request';
import { infotext } from '@qwen-supervisor/protocol/picture-text';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Backend } from '../backend.js';
import { answers } from '../contract/dialect-errors.js';
import { type App, binarySchema, byId } from '../contract/schemas.js';
import { INPUT } from '../orders.js';
import {
  contentType,
  encodeAs,
  FORMATS,
  QUALITY_DEFAULT,
  readInput,
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

const flag = z.enum(['true', 'false']).transform((text) => text === 'true');

const pageSchema = z.object({
  search: z.string().max(1000).optional().describe('Words that are all in the prompt'),
  starred: flag.optional(),
  trashed: flag.optional().describe('Those in the trash, instead of those that are not'),
  model: z.string().max(200).optional(),
  width: z.coerce.number().int().min(1).optional(),
  height: z.coerce.number().int().min(1).optional(),
  cursor: z.coerce.number().int().min(1).optional().describe('`next` of the page before'),
  limit: z.coerce.number().int().min(1).max(PAGE_MAX).default(PAGE),
});

const thumbnailSchema = z.object({
  size: z
    .enum(THUMBNAIL_SIDES.map(String) as ['256', '512'])
    .default('256')
    .describe('Its longest side, pixels, at most'),
});

/** Of one request. */
const MARKED_MAX = 1000;

const marksSchema = z
  .strictObject({
    ids: z.array(z.string()).min(1).max(MARKED_MAX),
    starred: z.boolean().optional().describe('Favourites: no limit of what is kept removes them'),
    trashed: z.boolean().optional().describe('Into the trash, or out of it'),
  })
  .refine((marks) => marks.starred !== undefined || marks.trashed !== undefined, {
    error: "give 'starred' or 'trashed'",
  });

const indexEntry = z.tuple([z.string(), z.int(), z.int(), z.number(), z.union([z.literal(0), z.literal(1)])]);
const facetsSchema = z.object({
  models: z.array(z.object({ model: z.string(), count: z.int() })),
  sizes: z.array(z.object({ width: z.int(), height: z.int(), count: z.int() })),
});
const bySha256 = z.object({ sha256: z.string().regex(INPUT) });

export function imageRoutes(app: App, backend: Backend): void {
  const tags = ['images'];

  app.get(
    '/api/v1/images',
    {
      schema: {
        tags,
        summary: 'Pictures, newest first, as short as can be, a page at a time',
        description:
          'Each is [id, width, height, when it was made in milliseconds since 1970, 1 if it is starred else 0].',
        querystring: pageSchema,
        response: answers({ 200: z.object({ pictures: z.array(indexEntry), next: z.int().nullable() }) }),
      },
    },
    ({ query }) => {
      const { search = null, starred = null, trashed = false, model = null, width = null, height = null } = query;
      const filter = { search, starred, trashed, model, width, height };
      return backend.link.request('listPictures', { filter, cursor: query.cursor ?? null, limit: query.limit });
    },
  );

  app.patch(
    '/api/v1/images',
    {
      schema: {
        tags,
        summary: 'Star pictures, put them into the trash, or take them out',
        description: 'Tells which have changed; they stay in the trash for keep-trash-days.',
        body: marksSchema,
        response: answers({ 200: z.object({ changed: z.array(z.string()) }) }, 'BODY_INVALID', 'DISK_FULL'),
      },
    },
    ({ body: { ids, starred = null, trashed = null } }) =>
      backend.link.request('markPictures', { ids, marks: { starred, trashed } }),
  );

  app.get(
    '/api/v1/images/facets',
    {
      schema: {
        tags,
        summary: 'Models and sizes of the pictures that are kept, with how many there are of each',
        response: answers({ 200: facetsSchema }),
      },
    },
    () => backend.link.request('pictureFacets', {}),
  );

  app.delete(
    '/api/v1/images/trash',
    {
      schema: {
        tags,
        summary: 'Forget all pictures in the trash, with their jobs',
        response: answers({ 200: z.object({ removed: z.int() }) }, 'DISK_FULL'),
      },
    },
    () => backend.link.request('emptyTrash', {}),
  );

  app.get(
    '/api/v1/inputs/:sha256',
    {
      schema: {
        tags,
        summary: 'A picture that a job draws over, as it was scaled for it: initImage or mask of the job',
        params: bySha256,
        response: answers({ 200: binarySchema, 304: z.void() }, 'IMAGE_NOT_FOUND'),
      },
    },
    async (request, reply) => {
      const { sha256 } = request.params;
      if (isKnown(request, reply, sha256)) return reply.status(304).send();
      return reply.header('content-type', contentType('png')).send(await readInput(backend, sha256));
    },
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
        summary: 'A small WebP of a picture',
        params: byId,
        querystring: thumbnailSchema,
        response: answers({ 200: binarySchema, 304: z.void() }, 'IMAGE_NOT_FOUND'),
      },
    },
    async (request, reply) => {
      const found = await backend.link.request('findImage', { id: request.params.id });
      const side = Number(request.query.size) as (typeof THUMBNAIL_SIDES)[number];
      if (isKnown(request, reply, `${found.sha256}-thumbnail-${side}`)) return reply.status(304).send();
      return reply.header('content-type', contentType('webp')).send(await readThumbnail(backend, found, side));
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
      return {
        id,
        sha256,
        request: requestOf(job),
        ...made,
        parameters: infotext(job, job.model ?? backend.welcome.model.id),
      };
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
