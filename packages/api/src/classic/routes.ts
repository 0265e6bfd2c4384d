/**
 * The endpoints of the first Qwen-Image launcher (ramcana/qwen2, `src/api/main.py`), for its React page and scripts;
 * as it described them: they answer while a picture is being made, and a request that was queued runs.
 */
import { totalmem } from 'node:os';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Job } from '@qwen-supervisor/protocol/job';
import { adaptToModel, roundSide } from '@qwen-supervisor/protocol/job-request';
import { SEED_MAX } from '@qwen-supervisor/protocol/seed';
import { mainWorker, type SystemStatus } from '@qwen-supervisor/protocol/status';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { prefixOf } from '../access/public-url.js';
import type { Backend } from '../backend.js';
import { TEXT_MAX } from '../bodies/json-body.js';
import { classicAnswers, WAIT_ERRORS } from '../contract/dialect-errors.js';
import { type App, binarySchema } from '../contract/schemas.js';
import { type OrderFields, submitAndWait, toOrders, waitForPictures } from '../orders.js';
import { answerPatiently } from '../patience.js';
import { streamPicture } from '../pictures/pictures.js';

const SHOWN_JOBS = 5;
const GIGABYTE = 1e9;

const textToImageSchema = z.object({
  prompt: z.string().min(1),
  negative_prompt: z.string().nullish(),
  width: z.number().nullish(),
  height: z.number().nullish(),
  num_inference_steps: z.int().nullish(),
  cfg_scale: z.number().nullish(),
  seed: z.int().min(0).max(SEED_MAX).nullish(),
  language: z.enum(['en', 'zh']).nullish(),
  enhance_prompt: z.boolean().nullish(),
  aspect_ratio: z.string().nullish(),
});

const imageToImageSchema = textToImageSchema.extend({
  init_image: z.string().nullish().describe('base64, a data: URL, or the id of a picture of this server'),
  init_image_path: z
    .string()
    .nullish()
    .describe('The image_path of an earlier answer; files of the server are not read'),
  strength: z.number().nullish(),
});

type Body = z.output<typeof textToImageSchema>;

const generated = z.object({
  success: z.boolean(),
  image_path: z.string().nullable(),
  message: z.string(),
  generation_time: z.number().nullable(),
  parameters: z.object({}).loose(),
  job_id: z.string(),
});

export function classicRoutes(app: App, backend: Backend): void {
  const { link } = backend;
  const tags = ['classic'];
  const loose = classicAnswers({ 200: z.object({}).loose() });
  const response = classicAnswers({ 200: generated }, ...WAIT_ERRORS);
  const status = () => link.request('status', {});

  app.get(
    '/',
    {
      config: { access: 'public' },
      schema: { tags, summary: 'What is here; browsers are led to the page', response: loose },
    },
    (request, reply) => {
      reply.header('vary', 'origin, accept');
      if (prefersHtml(request.headers.accept)) {
        const prefix = prefixOf(request, backend.settings);
        return reply.redirect(`${prefix}/app/`, 302);
      }
      return reply.send({
        name: 'Qwen-Image API',
        version: backend.welcome.version,
        description: 'A local Qwen-Image server',
        endpoints: {
          status: '/status',
          generate: '/generate/text-to-image',
          img2img: '/generate/image-to-image',
          'aspect-ratios': '/aspect-ratios',
          queue: '/queue',
          docs: '/docs',
        },
      });
    },
  );

  app.get('/status', { schema: { tags, summary: 'Model, memory and queue', response: loose } }, async () => {
    const system = await status();
    const { model, queue } = system;
    return {
      ...modelAndMemory(system),
      queue_size: queue.queued,
      is_generating: queue.running > 0,
      current_generation: queue.current,
      queue_length: queue.queued,
      initialization: {
        status: model.state === 'ready' ? 'model_ready' : model.state === 'loading' ? 'loading_model' : 'ready',
        message: mainWorker(system.children).reason,
        progress: model.state === 'ready' ? 100 : Math.floor((100 * model.bytesDone) / Math.max(1, model.bytesTotal)),
        model_loaded: model.state === 'ready',
        error: null,
        startup_time: model.loadSeconds,
      },
    };
  });

  app.get('/health', { schema: { tags, summary: 'That it lives', response: loose } }, async () => ({
    status: 'healthy',
    timestamp: new Date().toISOString(),
    ...modelAndMemory(await status()),
  }));

  app.post(
    '/initialize',
    {
      schema: {
        tags,
        summary: 'Load the model; requests may come at once and wait for it',
        response: classicAnswers({ 200: z.object({}).loose() }, 'WORKER_FAILED'),
      },
    },
    async () => {
      const { model } = await status();
      await link.request('loadModel', {});
      const ready = model.state === 'ready';
      return { success: true, message: ready ? 'Model already initialized' : 'Model loading; requests wait for it' };
    },
  );

  app.get('/aspect-ratios', { schema: { tags, summary: 'Sizes by ratio', response: loose } }, () => ({
    ratios: backend.welcome.model.sizes,
  }));

  app.post(
    '/generate/text-to-image',
    {
      bodyLimit: TEXT_MAX,
      schema: {
        tags,
        summary: 'A picture from a prompt; behind others the answer is its place',
        body: textToImageSchema.meta({ examples: [{ prompt: 'a fox on a teal background' }] }),
        response,
      },
    },
    (request, reply) => draw(request, reply, toNative(request.body, backend)),
  );

  app.post(
    '/generate/image-to-image',
    {
      bodyLimit: backend.settings.maxUploadBytes,
      schema: { tags, summary: 'A picture drawn over a picture', body: imageToImageSchema, response },
    },
    (request, reply) => {
      const { init_image: image, init_image_path: path, strength } = request.body;
      const [, earlier] = /^(?:.*\/)?(job_[0-9a-f]{24})\.png$/.exec(path ?? '') ?? [];
      const initImage = image || earlier;
      // It is large, and the request is held until the picture is drawn.
      delete request.body.init_image;
      if (!initImage)
        throw new CodedError('REQUEST_INVALID', 'init_image: a picture is missing; files of the server are not read');
      return draw(request, reply, {
        ...toNative(request.body, backend),
        initImage,
        strength: strength ?? undefined,
      });
    },
  );

  app.get('/queue', { schema: { tags, summary: 'What waits', response: loose } }, async () => {
    const { queue } = await status();
    const { jobs } = await link.request('waitingJobs', { limit: SHOWN_JOBS });
    return {
      queue_size: queue.queued,
      is_generating: queue.running > 0,
      queue: jobs.map((job) => ({
        job_id: job.id,
        type: job.initImage === null ? 'text-to-image' : 'image-to-image',
        request: parametersOf(job),
        timestamp: job.createdAt,
      })),
    };
  });

  app.delete(
    '/queue/:id',
    {
      schema: {
        tags,
        summary: 'Take a job out of the queue',
        params: z.object({ id: z.string() }),
        response: classicAnswers({ 200: z.object({}).loose() }, 'JOB_NOT_FOUND', 'JOB_NOT_QUEUED', 'DISK_FULL'),
      },
    },
    async ({ params: { id } }) => {
      const { status: now } = await link.request('cancelJob', { id, ifQueued: true });
      if (now !== 'cancelled') throw new CodedError('JOB_NOT_QUEUED', `job ${id} is ${now}`);
      return { success: true, message: `Job ${id} removed from queue` };
    },
  );

  app.get(
    '/images/:file',
    {
      config: { isPicture: true },
      schema: {
        tags,
        summary: 'A picture by the name in image_path',
        params: z.object({ file: z.string() }),
        response: classicAnswers({ 200: binarySchema }, 'IMAGE_NOT_FOUND'),
      },
    },
    async (request, reply) => {
      // An id, not a path: it is looked up, and never opened.
      const found = await link.request('findImage', { id: request.params.file.replace(/\.png$/, '') });
      const { size, stream } = await streamPicture(backend, found);
      reply.header('content-type', 'image/png').header('content-length', size).header('etag', `"${found.sha256}"`);
      return reply.send(stream);
    },
  );

  app.post(
    '/memory/clear',
    {
      schema: {
        tags,
        summary: "Give the model's memory back; the next request loads it again",
        response: classicAnswers({ 200: z.object({}).loose() }, 'MODEL_IN_USE'),
      },
    },
    async () => {
      await link.request('unloadModel', {});
      const { memory_info } = modelAndMemory(await status());
      return { success: true, message: 'Memory cleared; the next request loads the model again', memory_info };
    },
  );

  app.get('/memory/clear', { schema: { hide: true } }, (_request, reply) => {
    reply.header('allow', 'POST');
    throw new CodedError('METHOD_NOT_ALLOWED', 'GET must not change anything: use POST /memory/clear');
  });

  async function draw(request: FastifyRequest, reply: FastifyReply, fields: OrderFields) {
    const startedMs = performance.now();
    const { adapted, changes } = adaptToModel(fields, backend.welcome.model);
    if (changes.length > 0) reply.header('warning', changes.map((change) => `199 - "${change}"`).join(', '));
    // The same object: the pictures that it brings are taken out of it.
    const orders = await toOrders(backend, Object.assign(fields, adapted), { source: 'classic' });
    const { queue } = await status();
    const [job] = (await submitAndWait(backend, request, reply, orders)) as [Job];
    const parameters = parametersOf(job);
    if (queue.running + queue.queued > 0) {
      const message = `Request queued. Position: ${job.position ?? queue.queued + 1}`;
      return { success: true, image_path: null, message, generation_time: null, parameters, job_id: job.id };
    }
    return answerPatiently(request, reply, answer(request, reply, job, startedMs));
  }

  async function answer(request: FastifyRequest, reply: FastifyReply, job: Job, startedMs: number) {
    const [ended] = (await waitForPictures(backend, request, reply, [job])) as [Job];
    return {
      success: true,
      image_path: `generated_images/${ended.id}.png`,
      message: 'Image generated successfully',
      generation_time: Math.round(performance.now() - startedMs) / 1000,
      parameters: parametersOf(job),
      job_id: ended.id,
    };
  }
}

function toNative(body: Body, { welcome }: Backend): OrderFields {
  const { sizes, promptSuffix } = welcome.model;
  const ratio = body.aspect_ratio ? sizes[body.aspect_ratio] : undefined;
  if (body.aspect_ratio && !ratio)
    throw new CodedError('REQUEST_INVALID', `aspect_ratio: must be one of ${Object.keys(sizes).join(', ')}`);
  const side = (pixels: number | null | undefined) => (pixels ? roundSide(pixels) : undefined);
  const suffix = body.enhance_prompt === false ? '' : (promptSuffix?.[body.language ?? 'en'] ?? '');
  return {
    prompt: body.prompt + suffix,
    negativePrompt: body.negative_prompt || undefined,
    width: ratio?.[0] ?? side(body.width),
    height: ratio?.[1] ?? side(body.height),
    numInferenceSteps: body.num_inference_steps ?? undefined,
    trueCfgScale: body.cfg_scale ?? undefined,
    seed: body.seed ?? undefined,
  };
}

function parametersOf(job: Job) {
  return {
    prompt: job.prompt,
    negative_prompt: job.negativePrompt,
    width: job.width,
    height: job.height,
    num_inference_steps: job.numInferenceSteps,
    cfg_scale: job.trueCfgScale,
    seed: job.seed,
    strength: job.strength,
  };
}

/** Without a graphics device the numbers are those of the worker and this machine's memory. */
function modelAndMemory({ model, children, device }: SystemStatus) {
  const worker = mainWorker(children);
  const gpu = device.device !== 'cpu';
  const allocated = (gpu ? worker.deviceBytes : worker.rssBytes) ?? 0;
  const total = device.memoryBytes ?? totalmem();
  const gigabytes = (bytes: number) => Math.round((100 * bytes) / GIGABYTE) / 100;
  return {
    model_loaded: model.state === 'ready',
    gpu_available: gpu,
    // Clients know no other kind of card.
    device: gpu ? 'cuda' : 'cpu',
    memory_info: {
      gpu_available: gpu,
      allocated_gb: gigabytes(allocated),
      total_gb: gigabytes(total),
      available_gb: gigabytes(total - allocated),
      usage_percent: Math.round((1000 * allocated) / total) / 10,
      device_name: gpu ? device.name : 'CPU',
    },
  };
}

/** Whether HTML comes before JSON in what a client takes: browsers, and nobody else. */
function prefersHtml(accept = ''): boolean {
  const html = accept.indexOf('text/html');
  const json = accept.indexOf('application/json');
  return html >= 0 && (json < 0 || html < json);
}
