/**
 * The OpenAI Images API, as its clients use it. Reference: OpenAI API, "Images"; extra fields by the names that
 * vLLM-Omni gave them. Fields that we do not know are ignored; what would give another picture than was asked for is
 * refused.
 */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { type Job, pictureOf } from '@qwen-supervisor/protocol/job';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { publicUrl } from '../access/public-url.js';
import { signUrl } from '../access/signatures.js';
import type { Backend } from '../backend.js';
import { type Form, formOf } from '../bodies/forms.js';
import { TEXT_MAX } from '../bodies/json-body.js';
import { openaiAnswers, WAIT_ERRORS } from '../contract/dialect-errors.js';
import type { App } from '../contract/schemas.js';
import { readBody, wordingOf } from '../contract/wording.js';
import { type OrderFields, submitAndWait, toOrders, waitForPictures } from '../orders.js';
import { answerPatiently } from '../patience.js';
import { type Encoding, FORMATS, pictureOfJob } from '../pictures/pictures.js';
import {
  editSchema,
  encodingOf,
  generationSchema,
  type ImagesRequest,
  jsonEditSchema,
  pictureText,
  toNative,
  usageOf,
} from './request.js';
import { streamPictures } from './stream.js';

/** By these names clients know that a model draws: some show no other. */
const ALIASES = ['gpt-image-1', 'dall-e-3'];

const EDIT_FORM = wordingOf(editSchema);
const EDIT_JSON = wordingOf(jsonEditSchema);

const answerSchema = z.object({
  created: z.int(),
  data: z.array(z.object({ b64_json: z.string().optional(), url: z.string().optional() })),
  background: z.literal('opaque'),
  output_format: z.enum(FORMATS),
  quality: z.string(),
  size: z.string(),
  usage: z.object({ total_tokens: z.int() }).loose(),
});

export function openaiRoutes(app: App, backend: Backend): void {
  const tags = ['openai'];
  const response = openaiAnswers({ 200: answerSchema }, 'MODEL_UNKNOWN', ...WAIT_ERRORS);

  app.post(
    '/v1/images/generations',
    {
      bodyLimit: TEXT_MAX,
      schema: {
        tags,
        summary: 'Pictures from a prompt; with stream as server-sent events',
        body: generationSchema.meta({ examples: [{ prompt: 'a fox on a teal background', size: 'auto' }] }),
        response,
      },
    },
    (request, reply) => draw(request, reply, request.body, {}),
  );

  app.post(
    '/v1/images/edits',
    {
      bodyLimit: backend.settings.maxUploadBytes,
      schema: {
        tags,
        summary: 'Pictures drawn over a picture, where the mask is transparent (a form, or JSON)',
        consumes: ['multipart/form-data'],
        form: editSchema.extend({
          image: z.string().meta({ format: 'binary' }),
          mask: z.string().optional().meta({ format: 'binary' }),
        }),
        response,
      },
    },
    async (request, reply) => {
      const { body, images, mask } = request.isMultipart()
        ? editOfForm(await formOf(request, reply))
        : editOfJson(request);
      const [image, ...others] = images;
      if (!image) throw new CodedError('REQUEST_INVALID', 'image: a picture to draw over is missing');
      if (others.length > 0)
        throw new CodedError('REQUEST_INVALID', 'image: this model draws over one picture at a time');
      // What lies under the mask is drawn anew as a whole, unless the request says how much.
      const strength = body.strength ?? (mask ? 1 : undefined);
      return draw(request, reply, body, { initImage: image, mask, strength });
    },
  );

  app.get(
    '/v1/models',
    {
      schema: {
        tags,
        summary: 'The model, and the names by which clients look for one that draws',
        response: openaiAnswers({ 200: z.object({}).loose() }),
      },
    },
    () => ({ object: 'list', data: strictNames() ? [modelObject()] : [modelObject(), ...ALIASES.map(modelObject)] }),
  );

  app.get(
    '/v1/models/:id',
    {
      schema: {
        tags,
        summary: 'The model, by any name unless the operator wants it strict',
        params: z.object({ id: z.string() }),
        response: openaiAnswers({ 200: z.object({}).loose() }, 'MODEL_UNKNOWN'),
      },
    },
    ({ params }) => {
      checkName(params.id);
      return modelObject(strictNames() ? undefined : params.id);
    },
  );

  function strictNames(): boolean {
    return backend.settings.strictModelNames;
  }

  function modelObject(id = backend.welcome.model.id) {
    return { id, object: 'model', created: 0, owned_by: 'qwen-supervisor' };
  }

  function checkName(name: string | null | undefined): void {
    if (strictNames() && name && name !== backend.welcome.model.id)
      throw new CodedError('MODEL_UNKNOWN', `there is no model '${name.slice(0, 100)}'`);
  }

  async function draw(request: FastifyRequest, reply: FastifyReply, body: ImagesRequest, over: OrderFields) {
    checkName(body.model);
    if (body.background === 'transparent')
      throw new CodedError('REQUEST_INVALID', "background: this model has no transparency; use 'opaque' or 'auto'");
    const fields = Object.assign(over, toNative(body));
    const count = body.n ?? 1;
    const mask = { byTransparency: true };
    const orders = await toOrders(backend, fields, { source: 'openai', count, mask });
    const jobs = await submitAndWait(backend, request, reply, orders);
    if (body.stream) return streamPictures(backend, request, reply, jobs, body);
    return answerPatiently(request, reply, answer(request, reply, body, jobs));
  }

  async function answer(request: FastifyRequest, reply: FastifyReply, body: ImagesRequest, jobs: Job[]) {
    const drawn = await waitForPictures(backend, request, reply, jobs);
    const encoding = encodingOf(body);
    // What is not asked for is as OpenAI's models of that name answer.
    const asUrl = (body.response_format ?? (body.model?.startsWith('dall-e') ? 'url' : 'b64_json')) === 'url';
    const data = await Promise.all(
      drawn.map(async (job) =>
        asUrl
          ? { url: urlOf(request, job, encoding, backend.settings) }
          : { b64_json: (await pictureOfJob(backend, job, encoding)).toString('base64') },
      ),
    );
    const { width, height } = drawn[0] as Job;
    const created = Math.floor(Date.now() / 1000);
    const shared = { background: 'opaque', output_format: encoding.format, quality: body.quality ?? 'auto' };
    return { created, data, ...shared, size: `${width}x${height}`, usage: usageOf(drawn) };
  }
}

interface Edit {
  body: ImagesRequest;
  images: (Buffer | string)[];
  mask: Buffer | string | undefined;
}

function editOfForm({ fields, files }: Form): Edit {
  const named = (name: string) => files.flatMap((file) => (file.name === name ? [file.bytes] : []));
  const strange = files.find(({ name }) => name !== 'image' && name !== 'mask');
  if (strange)
    throw new CodedError('REQUEST_INVALID', `${strange.name.slice(0, 100)}: of files image and mask are taken alone`);
  const [mask, ...others] = named('mask');
  if (others.length > 0) throw new CodedError('REQUEST_INVALID', 'mask: one at a time');
  return { body: readBody(editSchema, EDIT_FORM, fields), images: named('image'), mask };
}

function editOfJson(request: FastifyRequest): Edit {
  const { image, images, mask, ...body } = readBody(jsonEditSchema, EDIT_JSON, request.body);
  // The pictures in it are large.
  request.body = undefined;
  const all = [...(image === null || image === undefined ? [] : [image].flat()), ...(images ?? [])];
  return { body, images: all.map(pictureText), mask: mask ? pictureText(mask) : undefined };
}

/** Clients fetch an address without a key; it carries a signature where one is needed. */
function urlOf(request: FastifyRequest, job: Job, { format, quality }: Encoding, placed: Backend['settings']): string {
  const { caller } = request;
  const { url: path } = pictureOf(job);
  const isKnown = caller.kind === 'known';
  const signed = isKnown ? signUrl(path, caller.key, Date.now()) : path;
  const query = format === 'png' ? '' : `${isKnown ? '&' : '?'}format=${format}&quality=${quality}`;
  return `${publicUrl(request, placed)}${signed}${query}`;
}
