/**
 * Stable Diffusion WebUI's API (A1111), as Open WebUI, SillyTavern and webuiapi use it. Reference: AUTOMATIC1111
 * `modules/api/models.py` and `api.py`. Nulls and unknown fields are ignored; what would give another picture than was
 * asked for is refused.
 */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Job } from '@qwen-supervisor/protocol/job';
import { adaptToModel, roundSide, STRENGTH_MIN } from '@qwen-supervisor/protocol/job-request';
import { infotext } from '@qwen-supervisor/protocol/picture-text';
import { SEED_MAX } from '@qwen-supervisor/protocol/seed';
import { type ChildState, mainWorker } from '@qwen-supervisor/protocol/status';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Backend } from '../backend.js';
import { TEXT_MAX } from '../bodies/json-body.js';
import { sdapiAnswers, WAIT_ERRORS } from '../contract/dialect-errors.js';
import type { App } from '../contract/schemas.js';
import { type OrderFields, submitAndWait, toOrders, waitForPictures } from '../orders.js';
import { answerPatiently } from '../patience.js';
import { pictureOfJob } from '../pictures/pictures.js';
import { SAMPLER } from './lists.js';
import { plainPrompt } from './prompt-syntax.js';

/** Pictures of one request. */
const PICTURES_MAX = 32;
/** States of a worker that will be ready without anybody doing anything. */
const COMING = new Set<ChildState>(['starting', 'loading', 'backing-off', 'blocked']);
const PNG = { format: 'png', quality: 100 } as const;

const textToImageSchema = z.object({
  prompt: z.string().nullish(),
  negative_prompt: z.string().nullish(),
  seed: z.int().min(0).max(SEED_MAX).nullish().describe('A negative one is drawn'),
  steps: z.int().nullish(),
  cfg_scale: z.number().nullish(),
  width: z.number().nullish().describe('The nearest multiple of 16 is drawn'),
  height: z.number().nullish(),
  batch_size: z.int().min(1).nullish(),
  n_iter: z.int().min(1).nullish(),
  send_images: z.boolean().nullish(),
});

const imageToImageSchema = textToImageSchema.extend({
  init_images: z.array(z.string()).nullish(),
  mask: z.string().nullish().describe('Where it is white, or where it is not transparent, is drawn anew'),
  mask_blur: z.number().min(0).nullish(),
  inpainting_mask_invert: z.int().nullish().describe('1: where the mask is black'),
  denoising_strength: z.number().nullish(),
  resize_mode: z
    .int()
    .refine((mode) => mode !== 2, {
      error: 'nothing is filled in: 0 stretches the picture, 1 cuts it to its new shape',
    })
    .nullish()
    .describe('1 cuts the picture to its new shape, 0 and 3 stretch it'),
});

type Body = z.output<typeof imageToImageSchema>;

const picturesSchema = z.object({
  images: z.array(z.string()),
  parameters: z.object({}).loose(),
  info: z.string().describe('JSON'),
});

export function sdapiRoutes(app: App, backend: Backend): void {
  const { link } = backend;
  const tags = ['sdapi'];
  const response = sdapiAnswers({ 200: picturesSchema }, ...WAIT_ERRORS);

  app.post(
    '/sdapi/v1/txt2img',
    {
      bodyLimit: TEXT_MAX,
      schema: {
        tags,
        summary: 'Pictures from a prompt',
        body: textToImageSchema.meta({ examples: [{ prompt: 'a fox on a teal background' }] }),
        response,
      },
    },
    (request, reply) => draw(request, reply, request.body, {}),
  );

  app.post(
    '/sdapi/v1/img2img',
    {
      bodyLimit: backend.settings.maxUploadBytes,
      schema: { tags, summary: 'Pictures drawn over a picture', body: imageToImageSchema, response },
    },
    (request, reply) => {
      const { init_images: images, mask } = request.body;
      // Pictures are not held while others are waited for, and not sent back.
      delete request.body.init_images;
      delete request.body.mask;
      const [image, ...others] = images ?? [];
      if (!image) throw new CodedError('REQUEST_INVALID', 'init_images: a picture to draw over is missing');
      if (others.length > 0) throw new CodedError('REQUEST_INVALID', 'init_images: one picture at a time');
      return draw(request, reply, request.body, { initImage: image, mask: mask || undefined });
    },
  );

  app.get(
    '/sdapi/v1/progress',
    {
      schema: {
        tags,
        summary: 'How far the running picture, or the load of the model, is',
        querystring: z.object({ skip_current_image: z.string().optional() }),
        response: sdapiAnswers({ 200: z.object({ progress: z.number() }).loose() }),
      },
    },
    async ({ query }) => {
      const { children, model, queue } = await link.request('status', {});
      const running = queue.current === null ? null : await link.request('getJob', { id: queue.current });
      // A client that has set the model waits for idle: a process that is still to load is not.
      const loading = COMING.has(mainWorker(children).state);
      const share = loading ? model.bytesDone / Math.max(1, model.bytesTotal) : (running?.progress ?? 0);
      const eta = running?.eta ?? null;
      const preview = running && query.skip_current_image !== 'true' ? backend.preview(running.id) : null;
      return {
        // Nothing but 0 is taken for idle.
        progress: running || loading ? Math.min(0.999, Math.max(0.001, share)) : 0,
        eta_relative: eta ? (eta.low + eta.high) / 2 : (model.etaSeconds ?? 0),
        state: {
          skipped: false,
          interrupted: false,
          stopping_generation: false,
          job: running?.id ?? (loading ? 'loading the model' : ''),
          job_count: queue.queued + queue.running + (loading ? 1 : 0),
          job_timestamp: running ? timestamp(running.createdAt) : '0',
          job_no: 0,
          sampling_step: running?.step ?? 0,
          sampling_steps: running?.steps ?? 0,
        },
        current_image: preview && Buffer.from(preview).toString('base64'),
        textinfo: loading ? `loading the model: ${Math.floor(100 * share)} %` : null,
      };
    },
  );

  for (const name of ['interrupt', 'skip'] as const) {
    app.post(
      `/sdapi/v1/${name}`,
      {
        schema: {
          tags,
          summary:
            name === 'skip'
              ? 'End the running picture where it is, if it was asked for here'
              : 'End the running picture where it is, if it was asked for here, and those of its request that wait',
          response: sdapiAnswers({ 200: z.object({}) }, 'DISK_FULL'),
        },
      },
      async () => {
        const { queue } = await link.request('status', {});
        const running = queue.current === null ? null : await link.request('getJob', { id: queue.current });
        // What others have asked for is not ours to end.
        if (running?.source !== 'sdapi') return {};
        // Those that wait go first: none of them may begin meanwhile.
        const { id, group } = running;
        if (name === 'interrupt' && group !== null)
          await link.request('cancelJobs', { scope: 'group', group, queued: true });
        await link.request('interruptJob', { id });
        return {};
      },
    );
  }

  async function draw(request: FastifyRequest, reply: FastifyReply, body: Body, over: OrderFields) {
    const count = (body.batch_size ?? 1) * (body.n_iter ?? 1);
    if (count > PICTURES_MAX)
      throw new CodedError('REQUEST_INVALID', `batch_size, n_iter: ${count} pictures are more than ${PICTURES_MAX}`);
    const crop = body.resize_mode === 1;
    const mask = { invert: body.inpainting_mask_invert === 1, blur: body.mask_blur ?? 0 };
    const { prompt, warnings } = plainPrompt(body.prompt ?? '');
    const negative = plainPrompt(body.negative_prompt ?? '');
    const { adapted, changes } = adaptToModel(toNative(body, over.initImage !== undefined), backend.welcome.model);
    const fields = Object.assign(over, adapted, {
      // A1111 draws without a prompt; so do we.
      prompt: prompt || ' ',
      negativePrompt: negative.prompt || undefined,
    });
    const orders = await toOrders(backend, fields, { source: 'sdapi', count, crop, mask });
    const jobs = await submitAndWait(backend, request, reply, orders);
    const said = [...warnings, ...negative.warnings, ...changes];
    return answerPatiently(request, reply, answer(request, reply, body, jobs, said));
  }

  async function answer(request: FastifyRequest, reply: FastifyReply, body: Body, jobs: Job[], warnings: string[]) {
    const ended = await waitForPictures(backend, request, reply, jobs);
    const pictures = await Promise.all(ended.map((job) => pictureOfJob(backend, job, PNG)));
    return {
      images: body.send_images === false ? [] : pictures.map((png) => png.toString('base64')),
      parameters: request.body as Record<string, unknown>,
      info: JSON.stringify({
        ...infoOf(ended, backend.welcome.model.id),
        ...(body.prompt ? { prompt: body.prompt } : {}),
        warnings,
      }),
    };
  }
}

function toNative(body: Body, isOver: boolean): OrderFields {
  const side = (pixels: number | null | undefined) => (pixels ? roundSide(pixels) : undefined);
  // A1111 takes 0, which draws nothing anew; the least that is drawn here is a step.
  const strength = body.denoising_strength === 0 ? STRENGTH_MIN : (body.denoising_strength ?? undefined);
  return {
    width: side(body.width),
    height: side(body.height),
    numInferenceSteps: body.steps ?? undefined,
    trueCfgScale: body.cfg_scale ?? undefined,
    seed: body.seed ?? undefined,
    ...(isOver ? { strength } : {}),
  };
}

function infoOf(jobs: Job[], model: string) {
  const [first] = jobs as [Job];
  return {
    prompt: first.prompt,
    all_prompts: jobs.map((job) => job.prompt),
    negative_prompt: first.negativePrompt,
    all_negative_prompts: jobs.map((job) => job.negativePrompt),
    seed: first.seed,
    all_seeds: jobs.map((job) => job.seed),
    subseed: 0,
    all_subseeds: jobs.map(() => 0),
    subseed_strength: 0,
    width: first.width,
    height: first.height,
    sampler_name: SAMPLER,
    cfg_scale: first.trueCfgScale,
    steps: first.numInferenceSteps,
    batch_size: jobs.length,
    denoising_strength: first.strength,
    sd_model_name: model,
    job_timestamp: timestamp(first.createdAt),
    index_of_first_image: 0,
    infotexts: jobs.map((job) => infotext(job, job.model ?? model)),
    job_ids: jobs.map((job) => job.id),
  };
}

/** 20260930143000 */
function timestamp(iso: string): string {
  return iso.replace(/\D/g, '').slice(0, 14);
}
