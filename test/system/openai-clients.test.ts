/** The OpenAI dialect with its own package, and with the requests that Open WebUI, LibreChat and n8n send. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import type { Job } from '@qwen-supervisor/protocol/job';
import { readPngTexts } from '@qwen-supervisor/protocol/png-text';
import OpenAI, { toFile } from 'openai';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { REPOSITORY } from '../fixture-files.js';
import { cli, type Product, startProduct, until } from './product.js';

const PROMPT = 'a fox on a teal background';
const FOX = readFileSync(join(REPOSITORY, 'docs/fox.png'));

let product: Product;
let client: OpenAI;
beforeAll(async () => {
  product = await startProduct();
  await product.ready();
  client = new OpenAI({ baseURL: `${product.url}/v1`, apiKey: 'none', maxRetries: 0 });
});
afterAll(() => product.clean());

const sha256 = (data: Uint8Array) => createHash('sha256').update(data).digest('hex');
const decode = (base64: string | undefined) => Buffer.from(base64 ?? '', 'base64');
const newest = async () => ((await product.call('/api/v1/jobs?limit=1')).json as { jobs: [Job] }).jobs[0];

describe('the openai package', () => {
  test('streams previews at the size of the picture, then the picture that a plain request gives', async () => {
    const stream = await client.images.generate({
      prompt: PROMPT,
      stream: true,
      partial_images: 3,
      ...{ seed: 3 },
    });
    const events = [];
    for await (const event of stream) events.push(event);
    expect(events.map(({ type }) => type)).toEqual([
      ...Array(3).fill('image_generation.partial_image'),
      'image_generation.completed',
    ]);
    expect(events.slice(0, 3)).toMatchObject(
      [0, 1, 2].map((index) => ({ partial_image_index: index, size: '128x128' })),
    );
    for (const { b64_json } of events) {
      expect(await sharp(decode(b64_json)).metadata()).toMatchObject({ format: 'png', width: 128, height: 128 });
    }
    const plain = await client.images.generate({ prompt: PROMPT, ...{ seed: 3 } });
    expect(sha256(decode(events.at(-1)?.b64_json))).toBe(sha256(decode(plain.data?.[0]?.b64_json)));
    expect(plain).toMatchObject({ output_format: 'png', size: '128x128', usage: { total_tokens: 64 } });
    expect(events.at(-1)).toMatchObject({ usage: { total_tokens: 64 } });
  });

  test('streams every one of several pictures, in its own format', async () => {
    const stream = await client.images.generate({
      prompt: PROMPT,
      n: 2,
      stream: true,
      output_format: 'webp',
      ...{ num_inference_steps: 2 },
    });
    const formats = [];
    for await (const event of stream) formats.push((await sharp(decode(event.b64_json)).metadata()).format);
    expect(formats).toEqual(['webp', 'webp']);
  });

  test('edits a picture, plain and streamed; the size follows the picture unless it is given', async () => {
    const image = await toFile(FOX, '../../etc/passwd', { type: 'image/png' });
    const plain = await client.images.edit({ image, prompt: PROMPT, ...{ seed: 5, strength: 0.4 } });
    expect(await sharp(decode(plain.data?.[0]?.b64_json)).metadata()).toMatchObject({ width: 128, height: 128 });
    expect(await newest()).toMatchObject({ strength: 0.4, seed: 5, source: 'openai', steps: 8 });
    const wide = await toFile(await sharp(FOX).resize(300, 200, { fit: 'fill' }).jpeg().toBuffer(), 'wide.jpg');
    const stream = await client.images.edit({
      image: [wide],
      prompt: PROMPT,
      size: 'auto',
      stream: true,
      partial_images: 1,
    });
    const types = [];
    for await (const event of stream) types.push([event.type, event.size]);
    expect(types).toEqual([
      ['image_edit.partial_image', '160x112'],
      ['image_edit.completed', '160x112'],
    ]);
  });

  test('edits what its mask leaves transparent, and nothing else; a form and JSON alike', async () => {
    const raw = (png: Buffer) => sharp(png).removeAlpha().raw().toBuffer();
    const original = await sharp(FOX).resize(128, 128, { fit: 'fill' }).png().toBuffer();
    // The left half is to stay.
    const stay = { create: { width: 64, height: 128, channels: 4, background: 'black' } } as const;
    const clear = { create: { width: 128, height: 128, channels: 4, background: '#0000' } } as const;
    const left = { input: await sharp(stay).png().toBuffer(), left: 0, top: 0 };
    const mask = await sharp(clear).composite([left]).png().toBuffer();
    const { data } = await client.images.edit({
      image: await toFile(original, 'fox.png'),
      mask: await toFile(mask, 'mask.png'),
      prompt: 'a blue box on a red background',
      size: '128x128' as never,
      ...({ num_inference_steps: 4, seed: 5 } as object),
    });
    const drawn = Buffer.from(data?.[0]?.b64_json as string, 'base64');
    const [before, after] = [await raw(original), await raw(drawn)];
    const differing = [0, 0];
    for (let i = 0; i < before.length; i += 3) {
      const half = Math.floor(i / 3) % 128 < 64 ? 0 : 1;
      if (before[i] !== after[i]) differing[half] = (differing[half] as number) + 1;
    }
    expect([differing[0], (differing[1] as number) > 64 * 128 * 0.5]).toEqual([0, true]);
    const url = (png: Buffer) => `data:image/png;base64,${png.toString('base64')}`;
    const json = {
      prompt: 'a blue box on a red background',
      images: [{ image_url: url(original) }],
      mask: { image_url: url(mask) },
      size: '128x128',
      num_inference_steps: 4,
      seed: 5,
    };
    const again = (await product.call('/v1/images/edits', json)).json as { data: [{ b64_json: string }] };
    expect(Buffer.from(again.data[0].b64_json, 'base64')).toEqual(drawn);
  });

  test('hears what cannot be done rather than getting something else', async () => {
    const image = await toFile(FOX, 'fox.png');
    const refused = (action: Promise<unknown>) => action.then(String, (error: Error) => error.message);
    expect(await refused(client.images.edit({ image: [image, image], prompt: PROMPT }))).toMatch(
      /one picture at a time/,
    );
    expect(await refused(client.images.edit({ image, mask: image, prompt: PROMPT }))).toMatch(/mask: .*transparent/);
    const empty = await toFile(Buffer.alloc(0), 'empty.png');
    expect(await refused(client.images.edit({ image: empty, prompt: PROMPT }))).toMatch(/^400 .*empty/);
    const transparent = client.images.generate({ prompt: PROMPT, background: 'transparent' });
    expect(await refused(transparent)).toMatch(/background: /);
    expect(await refused(client.images.generate({ prompt: PROMPT, stream: true, n: 11 } as never))).toMatch(/^400 n: /);
  });
});

describe('Open WebUI', () => {
  test('gets pictures for what it sends, by url and as base64', async () => {
    const { json } = await product.call(
      '/v1/images/generations',
      { model: 'dall-e-2', prompt: PROMPT, n: 1, size: '128x128', response_format: 'b64_json' },
      { authorization: 'Bearer sk-anything' },
    );
    const { data } = json as { data: { b64_json: string }[] };
    expect(await sharp(decode(data[0]?.b64_json)).metadata()).toMatchObject({ width: 128 });
    const byUrl = (
      await product.call('/v1/images/generations', {
        model: 'dall-e-2',
        prompt: PROMPT,
        n: 1,
        response_format: 'url',
        output_format: 'jpeg',
      })
    ).json as { data: { url: string }[] };
    const fetched = await fetch(byUrl.data[0]?.url as string, { headers: { authorization: 'Bearer sk-anything' } });
    expect(fetched.headers.get('content-type')).toBe('image/jpeg');
  });

  test.each(['image', 'image[]'])('edits with the form field %s', async (field) => {
    const form = new FormData();
    form.append(field, new Blob([FOX], { type: 'image/png' }), 'image.png');
    for (const [name, value] of Object.entries({
      model: 'gpt-image-1',
      prompt: PROMPT,
      n: '1',
      size: '128x128',
      background: 'auto',
      response_format: 'b64_json',
    }))
      form.append(name, value);
    const response = await product.fetch('/v1/images/edits', { method: 'POST', body: form });
    const { data } = (await response.json()) as { data: { b64_json: string }[] };
    expect(await sharp(decode(data[0]?.b64_json)).metadata()).toMatchObject({ width: 128, height: 128 });
  });
});

test('LibreChat gets base64 without asking for it, whatever model it names', async () => {
  const { data } = await client.images.generate({
    model: 'gpt-image-1',
    prompt: PROMPT,
    n: 1,
    background: 'auto',
    output_format: 'png',
    quality: 'auto',
    size: 'auto',
  });
  expect(data?.[0]).toMatchObject({ b64_json: expect.stringMatching(/^iVBOR/) });
});

test('a client of dall-e that asks for nothing gets addresses, as LibreChat reads them', async () => {
  const { json } = await product.call('/v1/images/generations', { model: 'dall-e-3', prompt: PROMPT, n: 1 });
  const [{ url }] = (json as { data: [{ url: string }] }).data;
  expect((await fetch(url)).headers.get('content-type')).toBe('image/png');
});

test('of several pictures one that is cancelled does not cost the others', async () => {
  const blocker = await product.submit({ prompt: PROMPT, numInferenceSteps: 1000 });
  const drawing = product.call('/v1/images/generations', { prompt: PROMPT, n: 3, num_inference_steps: 3 });
  const [unwanted, ...others] = await until(async () => {
    const { jobs } = (await product.call('/api/v1/jobs?status=queued')).json as { jobs: Job[] };
    return jobs.length === 3 ? jobs : null;
  });
  expect(others).toHaveLength(2);
  await product.call(`/api/v1/jobs/${unwanted?.id}/cancel`, '');
  await product.call(`/api/v1/jobs/${blocker.id}/cancel`, '');
  const { status, json } = await drawing;
  expect([status, (json as { data: object[] }).data.length]).toEqual([200, 2]);
});

test('a picture of real size is streamed, too', async () => {
  const body = { prompt: PROMPT, size: '1024x1024', num_inference_steps: 1, true_cfg_scale: 1, stream: true };
  const response = await product.fetch('/v1/images/generations', { method: 'POST', body: JSON.stringify(body) });
  const text = await response.text();
  expect(text.length).toBeGreaterThan(1_200_000);
  expect(text).toMatch(/^event: image_generation\.completed$/m);
});

test('n8n finds a model to pick and gets pictures for its fields', async () => {
  expect((await product.call('/v1/models')).json).toMatchObject({
    object: 'list',
    data: [{ id: 'pocket', object: 'model' }, { id: 'gpt-image-1' }, { id: 'dall-e-3' }],
  });
  const body = { model: 'gpt-image-1-mini', prompt: PROMPT, n: 2, quality: 'medium', size: '128x128', style: 'vivid' };
  const { json, headers } = await product.call('/v1/images/generations', body);
  expect((json as { data: object[] }).data).toHaveLength(2);
  const [a, b] = (headers.get('x-seed') as string).split(', ').map(Number) as [number, number];
  expect(b, 'two pictures, not one twice').toBe(a + 1);
});

test('with strict names only the model that is loaded is answered; without metadata the file is silent', async () => {
  const strict = await startProduct(['--model-names', 'strict', '--picture-metadata', 'omit']);
  onTestFinished(() => strict.clean());
  const { status, json } = await strict.call('/v1/images/generations', { model: 'dall-e-3', prompt: PROMPT });
  expect([status, json]).toMatchObject([404, { error: { code: 'MODEL_UNKNOWN', type: 'invalid_request_error' } }]);
  const known = await strict.call('/v1/images/generations', {
    model: 'pocket',
    prompt: PROMPT,
    num_inference_steps: 1,
  });
  expect(known.status).toBe(200);
  const { data } = known.json as { data: { b64_json: string }[] };
  expect(readPngTexts(decode(data[0]?.b64_json))).toEqual({});
});

describe('a client that goes away', () => {
  /** Sends a request and hangs up when its job is in that state; gives the job. */
  async function hangUpWhen(state: Job['status'], body: object, headers: Record<string, string> = {}): Promise<Job> {
    const { port } = new URL(product.url);
    const options = { port, path: '/v1/images/generations', method: 'POST', agent: false, headers };
    const request = httpRequest(options);
    request.on('error', () => {});
    request.end(JSON.stringify({ prompt: PROMPT, ...body }));
    const marked = await until(async () => {
      const job = await newest();
      return job.status === state &&
        job.numInferenceSteps === (body as Job & { num_inference_steps: number }).num_inference_steps
        ? job
        : null;
    });
    request.destroy();
    return marked;
  }

  test('takes its waiting job along, and leaves the running one, which ends and is kept', async () => {
    const running = await hangUpWhen('running', { num_inference_steps: 151 });
    const waiting = await hangUpWhen('queued', { num_inference_steps: 152 });
    expect(await product.ended(waiting.id)).toMatchObject({ status: 'cancelled' });
    expect(await product.ended(running.id)).toMatchObject({ status: 'done', step: 151 });
  });

  test('with an Idempotency-Key keeps its waiting job, and gets its picture when it comes back', async () => {
    const running = await hangUpWhen('running', { num_inference_steps: 153 });
    const headers = { 'idempotency-key': 'come-back' };
    const waiting = await hangUpWhen('queued', { num_inference_steps: 12 }, headers);
    const again = await product.call('/v1/images/generations', { prompt: PROMPT, num_inference_steps: 12 }, headers);
    expect([again.status, again.headers.get('x-job-id')]).toEqual([200, waiting.id]);
    expect(await product.ended(running.id)).toMatchObject({ status: 'done' });
  });

  test('is not what the death of the API is: neither a kill nor a restart cancels anything', async () => {
    const { id } = await product.submit({ prompt: PROMPT, numInferenceSteps: 1000 });
    for (const end of [killApi, restartApi]) {
      const steps = 305;
      const lost = product
        .call('/v1/images/generations', { prompt: PROMPT, num_inference_steps: steps })
        .catch(() => null);
      const waiting = await until(async () => {
        const job = await newest().catch(() => null);
        return job?.numInferenceSteps === steps && job.status === 'queued' ? job : null;
      });
      await end();
      const answer = await lost;
      // A kill cuts the connection; a restart tells first.
      if (end === restartApi)
        expect([answer?.status, answer?.headers.get('x-job-id')], 'told where its picture will be').toEqual([
          503,
          waiting.id,
        ]);
      await until(async () => product.status().catch(() => null));
      expect(await product.job(waiting.id)).toMatchObject({ status: 'queued' });
      await product.call(`/api/v1/jobs/${waiting.id}/cancel`, '');
    }
    await product.call(`/api/v1/jobs/${id}/cancel`, '');
  });

  async function killApi(): Promise<void> {
    process.kill(await product.pidOf('api'), 'SIGKILL');
  }

  async function restartApi(): Promise<void> {
    const before = await product.pidOf('api');
    await cli(['restart', 'api', '--data-dir', product.dataDir]);
    await until(async () => ((await product.pidOf('api').catch(() => before)) !== before ? true : null));
  }
});
