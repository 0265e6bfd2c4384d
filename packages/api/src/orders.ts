/** From requests of clients, whatever their dialect, to jobs in the queue. */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { type Idempotency, type Job, type JobOrder, type JobSource, pictureOf } from '@qwen-supervisor/protocol/job';
import { completeRequest, type NativeRequest, parseNativeRequest } from '@qwen-supervisor/protocol/job-request';
import { drawSeed, seedAfter } from '@qwen-supervisor/protocol/seed';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Backend } from './backend.js';
import { readInput, readPicture } from './pictures/pictures.js';
import { decodeBase64, inspect, type MaskTerms, sizeFor, storeInput, storeMask } from './pictures/uploads.js';

/** One that an earlier job drew over. */
export const INPUT = /^[0-9a-f]{64}$/;

/** A native request; pictures may come as bytes, where the dialect has taken them from a form. */
export type OrderFields = Partial<Omit<NativeRequest, 'initImage' | 'mask'>> & {
  initImage?: string | Buffer | undefined;
  mask?: string | Buffer | undefined;
};

/** What an order wants beyond its fields. */
export interface OrderTerms {
  source: JobSource;
  /** Pictures that differ in their seeds alone: s, s + 1, … */
  count?: number;
  /** The picture that is drawn over keeps its shape and is cut, rather than stretched. */
  crop?: boolean;
  mask?: MaskTerms;
}

/**
 * Checks a request and completes it; stores the pictures that it brings, and takes them out of `fields`: they may be
 * large, and whoever waits for the drawn one holds the fields all the while.
 * @throws CodedError BODY_INVALID, REQUEST_INVALID, UPLOAD_INVALID, IMAGE_NOT_FOUND, DISK_FULL
 */
export async function toOrders(backend: Backend, fields: OrderFields, terms: OrderTerms): Promise<JobOrder[]> {
  const { initImage, mask, ...rest } = dropUndefined(fields);
  delete fields.initImage;
  delete fields.mask;
  const given = parseNativeRequest({
    ...rest,
    ...(initImage === undefined ? {} : { initImage: 'a picture' }),
    ...(mask === undefined ? {} : { mask: 'a picture' }),
  });
  const { model, limits, dataDir } = backend.welcome;
  const upload = initImage === undefined ? null : await inspect(await bytesOf(backend, initImage));
  const size = upload ? sizeFor(upload, given, backend.welcome) : {};
  const { seed: first, ...request } = completeRequest({ ...given, ...size }, model, limits, drawSeed);
  const crop = terms.crop ?? false;
  const input = upload ? await storeInput(dataDir, upload, request, crop) : null;
  const maskUpload = mask === undefined ? null : await inspect(await bytesOf(backend, mask));
  const storedMask = maskUpload ? await storeMask(dataDir, maskUpload, request, crop, terms.mask ?? {}) : null;
  return Array.from({ length: terms.count ?? 1 }, (_, i) => ({
    request: { ...request, seed: seedAfter(first, i), initImage: input, mask: storedMask },
    priority: given.priority ?? 0,
    source: terms.source,
    retryOf: null,
    owner: null,
  }));
}

/** Puts orders into the queue and tells their ids and seeds in the answer's headers. */
export async function submit(
  { link }: Backend,
  request: FastifyRequest,
  reply: FastifyReply,
  orders: JobOrder[],
): Promise<Job[]> {
  // Whatever came with the request is stored by now.
  request.received.release();
  const own = orders.map((order) => ({ ...order, owner: ownerOf(request) }));
  const { jobs, replayed } = await link.request('submitJobs', { orders: own, idempotency: idempotencyOf(request) });
  if (replayed) reply.header('idempotent-replayed', 'true');
  tell(reply, jobs);
  return jobs;
}

function tell(reply: FastifyReply, jobs: Job[]): void {
  reply
    .header('x-job-id', jobs.map((job) => job.id).join(', '))
    .header('x-seed', jobs.map((job) => job.seed).join(', '));
}

/** The same, for a client that waits: a picture that it has given up, and that is still drawn, is its own. */
export async function submitAndWait(
  backend: Backend,
  request: FastifyRequest,
  reply: FastifyReply,
  orders: JobOrder[],
): Promise<Job[]> {
  const left = idempotencyOf(request) === null ? backend.abandoned.take(request) : null;
  if (!left) return submit(backend, request, reply, orders);
  const found = await Promise.allSettled(left.map(({ id }) => backend.link.request('getJob', { id })));
  const now = found.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  // Some may have been removed meanwhile.
  if (now.length < left.length || now.some(({ status }) => status === 'cancelled' || status === 'failed'))
    return submit(backend, request, reply, orders);
  request.received.release();
  tell(reply, now);
  return now;
}

/** Whose jobs these will be. */
export function ownerOf({ caller }: FastifyRequest): string | null {
  return caller.name || null;
}

/**
 * If the client goes away, those of its jobs that still wait are cancelled; the running one ends and is kept. With an
 * Idempotency-Key it may come back: then all are kept.
 */
export function cancelWhenGone(backend: Backend, request: FastifyRequest, { raw }: FastifyReply, jobs: Job[]): void {
  if (request.headers['idempotency-key'] !== undefined) return;
  const cancel = () => {
    if (raw.writableFinished || backend.stopping) return;
    backend.abandoned.add(request, jobs);
    for (const { id } of jobs) {
      backend.link
        .request('cancelJob', { id, ifQueued: true })
        .catch((error: Error) => console.error(`job ${id} of a client that went away: ${error.message}`));
    }
  };
  if (raw.destroyed) cancel();
  else raw.on('close', cancel);
}

/**
 * Waits until all have ended; gives those that have a picture. One that failed, or is waited for in vain, does not
 * cost the others. @throws CodedError where none has one
 */
export async function waitForPictures(
  backend: Backend,
  request: FastifyRequest,
  reply: FastifyReply,
  jobs: Job[],
): Promise<Job[]> {
  cancelWhenGone(backend, request, reply, jobs);
  const outcomes = await Promise.allSettled(jobs.map((job) => backend.waitForEnd(job.id)));
  const ended = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
  const drawn = ended.filter((job) => job.images.length > 0);
  if (drawn.length > 0) return drawn;
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  pictureOf(ended[0] as Job);
  return drawn;
}

const IDEMPOTENCY_KEY = /^[\x21-\x7e]{1,255}$/;

/**
 * The header `Idempotency-Key`: a client that did not get its answer repeats its request with the same key, and gets
 * the same jobs. Reference: IETF draft-ietf-httpapi-idempotency-key-header. Null without the header. @throws
 * CodedError REQUEST_INVALID
 */
export function idempotencyOf({ headers, fingerprint, caller }: FastifyRequest): Idempotency | null {
  const key = headers['idempotency-key'];
  if (key === undefined) return null;
  if (typeof key !== 'string' || !IDEMPOTENCY_KEY.test(key)) {
    throw new CodedError('REQUEST_INVALID', 'Idempotency-Key: must have 1 to 255 visible ASCII characters');
  }
  return { key: `${caller.name} ${key}`.trimStart(), fingerprint };
}

/** An id of ours names a picture; anything else is one. @throws CodedError UPLOAD_INVALID, IMAGE_NOT_FOUND */
async function bytesOf(backend: Backend, picture: string | Buffer): Promise<Buffer> {
  if (typeof picture !== 'string') return picture;
  if (INPUT.test(picture)) return readInput(backend, picture);
  if (!/^job_[0-9a-f]{24}$/.test(picture)) return decodeBase64(picture);
  return readPicture(backend, await backend.link.request('findImage', { id: picture }));
}

function dropUndefined<T extends object>(fields: T): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined && value !== null)) as T;
}
