/** Shapes of answers, for the OpenAPI document. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ModelAnswer } from '@qwen-supervisor/protocol/answers';
import type { ChosenDevice } from '@qwen-supervisor/protocol/device';
import { ERRORS, type ErrorCode, type ErrorObject } from '@qwen-supervisor/protocol/errors';
import { type Eta, JOB_SOURCES, JOB_STATUSES, type Job, type JobImage } from '@qwen-supervisor/protocol/job';
import {
  CHILD_NAME_PATTERN,
  CHILD_STATES,
  type ChildName,
  type Crash,
  type ExitCause,
  MACHINE_STATES,
  type MachineStatus,
  MODEL_COMPONENTS,
  type SystemStatus,
  type WorkerName,
} from '@qwen-supervisor/protocol/status';
import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';

/** The application, with request types that follow from zod schemas. */
export type App = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  ZodTypeProvider
>;

/** Gives a schema a name in the document. */
function named<T extends z.ZodType>(id: string, schema: T): T {
  z.globalRegistry.add(schema, { id });
  return schema;
}

export const byId = z.object({ id: z.string().describe('Id of a job; of a picture it is the same') });

export const errorSchema = named(
  'Error',
  z.object({
    code: z.enum(Object.keys(ERRORS) as [ErrorCode, ...ErrorCode[]]),
    message: z.string(),
    hint: z.string().describe('What to do'),
    retryAfterSeconds: z.number().optional(),
  }) satisfies z.ZodType<ErrorObject>,
);

const etaSchema = named(
  'Eta',
  z.object({ low: z.number(), high: z.number() }).describe('Seconds, as a range') satisfies z.ZodType<Eta>,
);

const imageSchema = named(
  'Image',
  z.object({ id: z.string(), url: z.string(), sha256: z.string() }) satisfies z.ZodType<JobImage>,
);

export const jobSchema = named(
  'Job',
  z.object({
    id: z.string(),
    status: z.enum(JOB_STATUSES),
    prompt: z.string(),
    negativePrompt: z.string(),
    width: z.int(),
    height: z.int(),
    numInferenceSteps: z.int(),
    trueCfgScale: z.number(),
    seed: z.int(),
    initImage: z.string().nullable().describe('SHA-256 of the picture that is drawn over'),
    strength: z.number().nullable(),
    mask: z.string().nullable().describe('SHA-256 of the picture whose white parts are drawn anew'),
    step: z.int().describe('Completed denoising steps'),
    steps: z.int().describe('Denoising steps in all'),
    attempts: z.int(),
    priority: z.int(),
    position: z.int().nullable().describe('Place in the queue, from 1'),
    progress: z.number().describe('How much of all steps is made, 0 to 1'),
    eta: etaSchema.nullable(),
    source: z.enum(JOB_SOURCES),
    group: z.string().nullable(),
    retryOf: z.string().nullable(),
    resumedAtStep: z.int().nullable(),
    startedOverReason: z.string().nullable(),
    devices: z.array(z.string()).describe('What has computed its steps, in this order'),
    deviceReason: z.string().nullable().describe('Why the last of them was chosen'),
    machine: z.string().nullable().describe('Of those that share the queue the one that has computed the last of them'),
    model: z.string().nullable().describe('What has drawn it'),
    images: z.array(imageSchema),
    starred: z.boolean(),
    trashedAt: z.string().nullable().describe('Since when its picture is in the trash'),
    error: errorSchema.nullable(),
    createdAt: z.string(),
    finishedAt: z.string().nullable(),
  }) satisfies z.ZodType<Job>,
);

export const jobsSchema = z.object({ jobs: z.array(jobSchema) });

/** Causes are listed where they are explained: `ExitCause`. */
const exitCause = z.string() as z.ZodType<string> as z.ZodType<ExitCause>;

export const childNameSchema = z
  .string()
  .regex(CHILD_NAME_PATTERN)
  .describe(
    'inference or api; of several workers inference-2, inference-3, …',
  ) as z.ZodType<string> as z.ZodType<ChildName>;

const deviceSchema = z.object({
  device: z.string().describe('What computes: cpu, cuda:0, webgpu:0'),
  name: z.string(),
  memoryBytes: z.int().nullable().describe('Of the card; null where it is the memory of the machine'),
  reason: z.string(),
}) satisfies z.ZodType<ChosenDevice>;

export const machineSchema = named(
  'Machine',
  z.object({
    name: z.string(),
    state: z.enum(MACHINE_STATES).describe('silent: nothing was heard of it for ten seconds'),
    isDrained: z.boolean().describe('It takes no more jobs'),
    isHere: z.boolean().describe('It is the one that answers'),
    seenAt: z.string().describe('When it was last heard of, by the clock of the database'),
    version: z.string(),
    url: z.string().describe('Where its own API is, as it knows it'),
    model: z.string(),
    workers: z.array(
      z.object({
        name: childNameSchema as z.ZodType<string> as z.ZodType<WorkerName>,
        state: z.enum(CHILD_STATES),
        device: z.string(),
        job: z.string().nullable().describe('Id of the job in its hands'),
        reason: z.string(),
      }),
    ),
  }) satisfies z.ZodType<MachineStatus>,
);

export const statusSchema = named(
  'Status',
  z.object({
    supervisor: z.object({ pid: z.int(), version: z.string(), uptimeSeconds: z.number(), url: z.string() }),
    machine: z
      .object({ memoryBytes: z.int(), availableBytes: z.int() })
      .describe('Memory of the whole machine, and of that what can be had without taking it from anybody'),
    children: z.array(
      z.object({
        name: childNameSchema,
        pid: z.int().nullable(),
        state: z.enum(CHILD_STATES),
        restarts: z.int(),
        rssBytes: z.int().nullable(),
        deviceBytes: z.int(),
        device: deviceSchema.nullable().describe('What a worker computes on'),
        load: z
          .object({ component: z.enum(MODEL_COMPONENTS), bytesDone: z.int(), bytesTotal: z.int() })
          .nullable()
          .describe('Of the load under way'),
        job: z.string().nullable().describe('Id of the job in its hands'),
        lastExit: z
          .object({
            code: z.int().nullable(),
            signal: z.string().nullable(),
            cause: exitCause.nullable(),
            at: z.string(),
          })
          .nullable(),
        reason: z.string(),
      }),
    ),
    device: deviceSchema.describe('Of the worker that is furthest'),
    model: z.object({
      id: z.string(),
      folder: z.string(),
      state: z.enum(['unloaded', 'loading', 'ready']),
      component: z.enum(MODEL_COMPONENTS).nullable(),
      bytesDone: z.int(),
      bytesTotal: z.int(),
      etaSeconds: z.number().nullable(),
      loadSeconds: z.number().nullable(),
    }),
    queue: z.object({
      queued: z.int(),
      running: z.int(),
      current: z.string().nullable(),
      problem: z.string().nullable(),
    }),
    machines: z.array(machineSchema).describe('All that draw from the same queue; none where it is its own'),
  }) satisfies z.ZodType<SystemStatus>,
);

export const crashSchema = named(
  'Crash',
  z.object({
    at: z.string(),
    child: childNameSchema,
    pid: z.int().nullable(),
    cause: exitCause,
    code: z.int().nullable(),
    signal: z.string().nullable(),
    during: z.enum(CHILD_STATES),
    uptimeSeconds: z.number(),
    rssBytes: z.int().nullable(),
    job: z.object({ id: z.string(), attempt: z.int(), step: z.int() }).nullable(),
    reason: z.string(),
    threads: z.array(z.string()).describe('Where the threads of one that hung stood'),
    tail: z.array(z.string()).describe('The last lines of its output'),
  }) satisfies z.ZodType<Crash>,
);

export const modelSchema = named(
  'Model',
  z.object({
    id: z.string(),
    state: z.enum(['unloaded', 'loading', 'ready']),
    defaults: z.object({
      width: z.int(),
      height: z.int(),
      numInferenceSteps: z.int(),
      trueCfgScale: z.number(),
      negativePrompt: z.string(),
    }),
    sizes: z.record(z.string(), z.tuple([z.int(), z.int()])).describe('Width and height by ratio'),
    presets: z
      .record(z.string(), z.object({ numInferenceSteps: z.int(), trueCfgScale: z.number() }))
      .describe('Steps and guidance: fast, balanced, high'),
    distilled: z
      .object({ steps: z.array(z.int()) })
      .nullable()
      .describe('The steps that a distilled model draws in, without guidance; null for any other'),
    examples: z.array(z.string()).describe('Prompts to begin with'),
    note: z.string().nullable().describe('What somebody should know who describes pictures to it'),
    limits: z.object({ maxSteps: z.int(), maxPixels: z.int(), maxUploadBytes: z.int() }),
    plan: z.object({
      neededBytes: z.int().describe('Of the memory of the machine, for the largest picture'),
      cardBytes: z.int().nullable().describe("The same of the graphics card's own"),
      availableBytes: z.int().describe('Of the memory of the machine, when the plan was made'),
      residentPixels: z.int().describe('Pictures of at most so many pixels are drawn with all parts in memory'),
      tileAbovePixels: z.int().describe('A picture of more pixels is decoded in tiles'),
    }),
  }) satisfies z.ZodType<ModelAnswer>,
);

export const okSchema = z.object({ ok: z.literal(true) });
export const eventStreamSchema = z.string().describe('text/event-stream');
export const binarySchema = z.string().describe('The bytes of the file');
