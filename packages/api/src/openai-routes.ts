/**
 * The OpenAI Images API, as its clients use it. Reference: OpenAI API, "Images"; extra fields by the names that vLLM-Omni
 * gave them. Any model name is answered by the model that is loaded; fields that we do not know are ignored.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CodedError, ERRORS } from '@qwen-supervisor/protocol/errors';
import {
  describeIssues,
  type Job,
  parseJobOrder,
  pictureOf,
  requireObject,
  SEED_MAX,
} from '@qwen-supervisor/protocol/job';
import { drawSeed } from '@qwen-supervisor/protocol/seed';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Backend } from './backend.js';
import { idempotencyOf } from './idempotency.js';

/** Pictures of one request. OpenAI's own limit. */
const N_MAX = 10;

const generationSchema = z.object({
  prompt: z.string(),
  n: z.int().min(1).max(N_MAX).nullish(),
  size: z
    .string()
    .regex(/^(auto|\d{1,5}x\d{1,5})$/, { error: "must be 'auto' or WIDTHxHEIGHT" })
    .nullish(),
  response_format: z.enum(['b64_json', 'url']).nullish(),
  seed: z.int().min(0).max(SEED_MAX).nullish(),
  negative_prompt: z.string().nullish(),
  num_inference_steps: z.int().nullish(),
  true_cfg_scale: z.number().nullish(),
});

export function openaiRoutes(app: FastifyInstance, backend: Backend): void {
  const { link } = backend;

  app.post('/v1/images/generations', async (request, reply) => {
    const parsed = generationSchema.safeParse(requireObject(request.body));
    if (!parsed.success) throw new CodedError('REQUEST_INVALID', describeIssues(parsed.error));
    const { defaults, limits, url } = backend.welcome;
    const orders = toRequests(parsed.data).map((native) => parseJobOrder(native, defaults, limits, drawSeed));
    const { jobs } = await link.request('submitJobs', { orders, idempotency: idempotencyOf(request) });
    reply
      .header('x-job-id', jobs.map((job) => job.id).join(', '))
      .header('x-seed', jobs.map((job) => job.seed).join(', '));
    const ended = await Promise.all(jobs.map((job) => backend.waitForEnd(job.id)));
    const asUrl = parsed.data.response_format === 'url';
    const origin = request.host ? `${request.protocol}://${request.host}` : url;
    const data = await Promise.all(ended.map((job) => (asUrl ? toUrl(job, origin) : toBase64(job))));
    return { created: Math.floor(Date.now() / 1000), data };
  });

  app.get('/v1/models', () => ({
    object: 'list',
    data: [{ id: backend.welcome.modelId, object: 'model', created: 0, owned_by: 'qwen-supervisor' }],
  }));

  async function toBase64(job: Job) {
    const { file } = await link.request('findImage', { id: pictureOf(job).id });
    return { b64_json: (await readFile(join(backend.welcome.dataDir, file))).toString('base64') };
  }
}

/** Errors in OpenAI's shape, with our hint beside it; fields by the names that this route has for them. */
export function toOpenaiError(error: CodedError) {
  const type = ERRORS[error.code].blame === 'caller' ? 'invalid_request_error' : 'server_error';
  const message = error.message.replace(/\b(numInferenceSteps|trueCfgScale|negativePrompt)\b/g, (name) =>
    name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
  );
  return { error: { message, type, param: null, code: error.code, hint: error.hint } };
}

/** `n` native requests with seeds s, s + 1, … */
function toRequests(body: z.infer<typeof generationSchema>) {
  const n = body.n ?? 1;
  const seed = body.seed ?? drawSeed();
  if (seed + n - 1 > SEED_MAX)
    throw new CodedError('REQUEST_INVALID', `seed: ${n} pictures would go beyond ${SEED_MAX}`);
  const [width, height] = body.size && body.size !== 'auto' ? body.size.split('x').map(Number) : [];
  return Array.from({ length: n }, (_, i) => ({
    prompt: body.prompt,
    negativePrompt: body.negative_prompt ?? undefined,
    width,
    height,
    numInferenceSteps: body.num_inference_steps ?? undefined,
    trueCfgScale: body.true_cfg_scale ?? undefined,
    seed: seed + i,
  }));
}

function toUrl(job: Job, origin: string) {
  return { url: `${origin}/api/v1/images/${pictureOf(job).id}` };
}
