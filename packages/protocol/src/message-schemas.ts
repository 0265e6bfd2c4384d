/**
 * What the supervisor takes from its peers, method by method: a child that is sick, or a client of another version,
 * may send anything. Fields that are not known are dropped.
 */
import { z } from 'zod';
import { IMAGE_FILE } from './data-files.js';
import { ERRORS, type ErrorCode, type ErrorObject } from './errors.js';
import { JOB_SOURCES, JOB_STATUSES, type JobFilter, type JobOrder, type PictureFilter } from './job.js';
import { type JobRequest, PRIORITY_MAX, PROMPT_MAX, SIDE_MAX, STEPS_MAX } from './job-request.js';
import type { JobOutcome, Params, SupervisorMethods, WorkerReports } from './messages.js';
import { SEED_MAX } from './seed.js';
import { CHILD_NAME_PATTERN, type ChildName, type LoadProgress, MODEL_COMPONENTS, type Vitals } from './status.js';

/** Characters of a text that is no prompt. */
const TEXT_MAX = 10_000;
/** Pictures that are marked together. */
const PICTURES_MAX = 1000;
/** Bytes of a preview. */
const PREVIEW_MAX = 1 << 20;

/** Clients may ask for anything that a header or an address can hold; what is not there is said to be so. */
const id = z.string().max(20_000);
const text = z.string().max(TEXT_MAX);
const count = z.number().int().min(0);
/** Measured, so that it may be a fraction. */
const amount = z.number().min(0);
const step = z.int().min(0).max(STEPS_MAX);
const nothing = z.object({});
const cursor = z.number().int().nullable();

const error = z.object({
  code: z.enum(Object.keys(ERRORS) as [ErrorCode, ...ErrorCode[]]).catch('INTERNAL'),
  message: text,
  hint: text,
  retryAfterSeconds: amount.optional(),
}) satisfies z.ZodType<ErrorObject>;

const hello = z.object({
  role: z.enum(['inference', 'api', 'cli']),
  pid: z.int(),
  token: id.nullable(),
  version: id.catch('unknown'),
});

const request = z.object({
  prompt: z.string().max(PROMPT_MAX),
  negativePrompt: z.string().max(PROMPT_MAX),
  width: z.int().min(1).max(SIDE_MAX),
  height: z.int().min(1).max(SIDE_MAX),
  numInferenceSteps: z.int().min(1).max(STEPS_MAX),
  trueCfgScale: amount,
  seed: z.int().min(0).max(SEED_MAX),
  initImage: id.nullable(),
  strength: amount.max(1).nullable(),
  mask: id.nullable(),
}) satisfies z.ZodType<JobRequest>;

const order = z.object({
  request,
  priority: z.int().min(-PRIORITY_MAX).max(PRIORITY_MAX),
  source: z.enum(JOB_SOURCES),
  retryOf: id.nullable(),
  owner: id.nullable(),
}) satisfies z.ZodType<JobOrder>;

const idempotency = z.object({ key: id, fingerprint: id }).nullable();
const filter = z.object({
  status: z.enum(JOB_STATUSES).nullable(),
  source: z.enum(JOB_SOURCES).nullable(),
  group: id.nullable(),
  ids: z.array(id).max(1000).nullable(),
}) satisfies z.ZodType<JobFilter>;

const pictureFilter = z.object({
  search: text.nullable(),
  starred: z.boolean().nullable(),
  trashed: z.boolean(),
  model: id.nullable(),
  width: count.nullable(),
  height: count.nullable(),
}) satisfies z.ZodType<PictureFilter>;

const vitals = z.object({
  rssBytes: amount,
  readBytes: amount,
  cpuSeconds: amount,
  step,
  stepShare: z.number().min(0).max(1),
  work: z.int(),
}) satisfies z.ZodType<Vitals>;

const progress = z.object({
  component: z.enum(MODEL_COMPONENTS),
  bytesDone: amount,
  bytesTotal: amount,
}) satisfies z.ZodType<LoadProgress>;

/** Of one attempt. */
const run = { jobId: id, attempt: count };

const preview = (z.instanceof(Uint8Array) as z.ZodType<Uint8Array>).refine((png) => png.length <= PREVIEW_MAX);

const outcome = z.discriminatedUnion('status', [
  z.object({
    status: z.literal('done'),
    step,
    imageId: id,
    file: z.string().regex(IMAGE_FILE),
    sha256: z.string().regex(/^[0-9a-f]{64}$/),
    bytes: count,
  }),
  z.object({ status: z.literal('failed'), error }),
  z.object({ status: z.literal('cancelled') }),
]) satisfies z.ZodType<JobOutcome>;

type Received = SupervisorMethods & WorkerReports;

/** The parameters of every method that the supervisor answers. */
export const MESSAGES: { [K in keyof Received]: z.ZodType<Params<Received, K>> } = {
  hello,
  submitJobs: z.object({ orders: z.array(order).min(1).max(1000), idempotency }),
  retryJob: z.object({ id, idempotency, owner: id.nullable() }),
  getJob: z.object({ id }),
  listJobs: z.object({ filter, cursor, limit: count.max(1000) }),
  waitingJobs: z.object({ limit: count.max(1000) }),
  cancelJob: z.object({ id, ifQueued: z.boolean() }),
  cancelJobs: z.discriminatedUnion('scope', [
    z.object({ scope: z.literal('running') }),
    z.object({ scope: z.literal('queued') }),
    z.object({ scope: z.literal('group'), group: id, queued: z.boolean().optional() }),
  ]) as z.ZodType<Params<Received, 'cancelJobs'>>,
  interruptJob: z.object({ id }),
  moveJob: z.object({ id, priority: z.int().nullable(), before: id.nullable() }),
  removeJob: z.object({ id }),
  findImage: z.object({ id }),
  listPictures: z.object({ filter: pictureFilter, cursor, limit: count.max(100_000) }),
  pictureFacets: nothing,
  markPictures: z.object({
    ids: z.array(id).max(PICTURES_MAX),
    marks: z.object({ starred: z.boolean().nullable(), trashed: z.boolean().nullable() }),
  }),
  emptyTrash: nothing,
  status: nothing,
  snapshot: nothing,
  metrics: nothing,
  loadModel: nothing,
  unloadModel: nothing,
  subscribe: z.object({ since: count.nullable() }),
  stop: nothing,
  drainMachine: z.object({ name: id, isDrained: z.boolean() }),
  restart: z.object({ name: z.custom<ChildName>((name) => typeof name === 'string' && CHILD_NAME_PATTERN.test(name)) }),
  reload: nothing,
  apiReady: nothing,
  apiKeys: nothing,
  beat: vitals,
  fatal: z.object({ error, permanent: z.boolean() }),
  loading: progress,
  loaded: z.object({ seconds: amount, msPerToken: amount }),
  begun: z.object({ ...run, step, startedOverReason: text.nullable(), device: text, model: text }),
  step: z.object({ ...run, step, preview: preview.nullable() }),
  decoding: z.object(run),
  finished: z.object({ ...run, outcome }),
};
