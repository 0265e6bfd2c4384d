import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { Job } from '@qwen-supervisor/protocol/job';
import OpenAI from 'openai';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { temporaryFolder } from '../fixture-files.js';
import { cli, type Product, startProduct } from './product.js';

const FOX = { prompt: 'a fox on a teal background', seed: 3 };

let product: Product;
beforeAll(async () => {
  product = await startProduct();
});
afterAll(() => product.clean());

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** Means of the middle and of the corners, as [r, g, b]. */
async function colours(png: Uint8Array) {
  const { data, info } = await sharp(png).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  const mean = (x0: number, y0: number, size: number) =>
    [0, 1, 2].map((c) => {
      let sum = 0;
      for (let y = y0; y < y0 + size; y++)
        for (let x = x0; x < x0 + size; x++) sum += data[(y * info.width + x) * 3 + c] as number;
      return sum / size ** 2;
    });
  return { middle: mean(52, 52, 24), corner: mean(2, 2, 12), width: info.width, height: info.height };
}

test('a request that arrives while the model loads waits and is served', async () => {
  expect((await fetch(`${product.url}/readyz`)).status).toBe(503);
  const job = await product.submit(FOX);
  expect(job).toMatchObject({ status: 'queued', steps: 20, step: 0, attempts: 0, width: 128, images: [], error: null });
  expect(await product.ended(job.id)).toMatchObject({ status: 'done', attempts: 1, step: 20, seed: 3 });
});

describe('the same request', () => {
  test('gives the same file through the native API, the command line, curl-like OpenAI calls and the openai package', async () => {
    const job = await product.ended((await product.submit(FOX)).id);
    const [image] = job.images;
    const native = Buffer.from(await (await fetch(product.url + image?.url)).arrayBuffer());
    expect(sha256(native)).toBe(image?.sha256);

    const output = join(temporaryFolder(), 'fox.png');
    const drawn = await cli(['generate', FOX.prompt, '-o', output, '--seed', '3', '--data-dir', product.dataDir]);
    expect(drawn).toMatchObject({ code: 0, stderr: '' });
    expect(drawn.stdout).toContain('seed 3');
    expect(sha256(readFileSync(output))).toBe(image?.sha256);

    const client = new OpenAI({ baseURL: `${product.url}/v1`, apiKey: 'none' });
    const { data } = await client.images.generate({ model: 'gpt-image-1', prompt: FOX.prompt, ...{ seed: 3 } });
    expect(sha256(Buffer.from(data?.[0]?.b64_json ?? '', 'base64'))).toBe(image?.sha256);
  });

  test('is a fox: orange in the middle, teal around it', async () => {
    const [image] = (await product.ended((await product.submit(FOX)).id)).images;
    const { middle, corner, width, height } = await colours(
      new Uint8Array(await (await fetch(product.url + image?.url)).arrayBuffer()),
    );
    expect([width, height]).toEqual([128, 128]);
    const [r, g, b] = middle as [number, number, number];
    expect(r).toBeGreaterThan(g);
    expect(g).toBeGreaterThan(b);
    const [cr, cg, cb] = corner as [number, number, number];
    expect(Math.min(cg, cb)).toBeGreaterThan(cr + 50);
  });
});

describe('the OpenAI route', () => {
  test('makes n pictures of the seeds s, s + 1, … and absolute addresses', async () => {
    const answer = await fetch(`${product.url}/v1/images/generations`, {
      method: 'POST',
      body: JSON.stringify({
        prompt: 'a cat',
        n: 2,
        seed: 7,
        response_format: 'url',
        num_inference_steps: 2,
        size: '64x48',
      }),
    });
    const { data } = (await answer.json()) as { data: { url: string }[] };
    expect(answer.headers.get('x-seed')).toBe('7, 8');
    expect(data).toHaveLength(2);
    const [a, b] = await Promise.all(data.map(async ({ url }) => Buffer.from(await (await fetch(url)).arrayBuffer())));
    expect(data[0]?.url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\//);
    expect(a?.equals(b as Buffer)).toBe(false);
    expect(await sharp(a).metadata()).toMatchObject({ width: 64, height: 48, format: 'png' });
  });

  test('lists the loaded model', async () => {
    const models = await new OpenAI({ baseURL: `${product.url}/v1`, apiKey: 'none' }).models.list();
    expect(models.data.map(({ id }) => id)).toEqual(['pocket', 'gpt-image-1', 'dall-e-3']);
  });

  test('answers errors in the shape that its clients read', async () => {
    const client = new OpenAI({ baseURL: `${product.url}/v1`, apiKey: 'none', maxRetries: 0 });
    const error = await client.images.generate({ prompt: 'x', size: 'square' as never }).catch((thrown) => thrown);
    expect(error).toMatchObject({ status: 400, code: 'REQUEST_INVALID', type: 'invalid_request_error' });
  });
});

test('the OpenAI route names a bad field as its clients know it', async () => {
  const { status, json } = await product.call('/v1/images/generations', { prompt: 'a', num_inference_steps: 0 });
  expect([status, json]).toMatchObject([400, { error: { message: expect.stringMatching(/^num_inference_steps: /) } }]);
});

describe('cancel', () => {
  test('stops the running job within a step and a waiting one before it starts', async () => {
    const running = await product.submit({ ...FOX, numInferenceSteps: 1000 });
    const waiting = await product.submit({ ...FOX, numInferenceSteps: 1000 });
    const next = await product.submit({ ...FOX, numInferenceSteps: 1 });
    expect((await product.call(`/api/v1/jobs/${waiting.id}/cancel`, '')).json).toMatchObject({ status: 'cancelled' });
    await product.call(`/api/v1/jobs/${running.id}/cancel`, {});
    const stopped = await product.ended(running.id);
    expect(stopped.status).toBe('cancelled');
    expect(stopped.step).toBeLessThan(1000);
    expect(await product.ended(next.id)).toMatchObject({ status: 'done' });
    expect(await product.job(waiting.id)).toMatchObject({ status: 'cancelled', attempts: 0 });
  });
});

describe('what a request leaves out', () => {
  test('comes from the model, and a drawn seed is reported', async () => {
    const [a, b] = [await product.submit({ prompt: 'a cat' }), await product.submit({ prompt: 'a cat' })];
    expect(a).toMatchObject({ width: 128, height: 128, numInferenceSteps: 20, trueCfgScale: 4, negativePrompt: ' ' });
    expect(a.seed).not.toBe(b.seed);
    await Promise.all([product.ended(a.id), product.ended(b.id)]);
  });

  test.each([
    [16, 16],
    [4096, 16],
    [208, 112],
  ])('a size of %ix%i is drawn', async (width, height) => {
    const job = await product.ended((await product.submit({ ...FOX, width, height, numInferenceSteps: 1 })).id);
    const [image] = job.images;
    const png = Buffer.from(await (await fetch(product.url + image?.url)).arrayBuffer());
    expect(await sharp(png).metadata()).toMatchObject({ width, height });
  });
});

/** The answer to these bytes. */
function raw(bytes: string): Promise<string> {
  const { hostname, port } = new URL(product.url);
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = connect(Number(port), hostname, () => socket.write(bytes));
    socket.on('data', (chunk) => {
      answer += chunk;
    });
    socket.on('close', () => resolve(answer));
    socket.on('error', reject);
  });
}

const DEEP = 100_000;
const bad: [string, string][] = [
  ['an empty body', ''],
  ['no JSON', 'prompt=a+fox'],
  ['a list', '[]'],
  ['a list nested 100,000 deep', '['.repeat(DEEP) + ']'.repeat(DEEP)],
  ['an object nested 100,000 deep', `${'{"prompt":'.repeat(DEEP)}1${'}'.repeat(DEEP)}`],
  ['null', 'null'],
  ['no prompt', '{}'],
  ['a prompt that is empty', '{"prompt":""}'],
  ['a prompt that is a number', '{"prompt":1}'],
];
const badNative: [string, string][] = [
  ['a side that is no multiple of 16', '{"prompt":"a","width":100}'],
  ['a side that is too small', '{"prompt":"a","width":0}'],
  ['a side that is too long', '{"prompt":"a","width":4112}'],
  ['too many pixels', '{"prompt":"a","width":4096,"height":4096}'],
  ['no steps', '{"prompt":"a","numInferenceSteps":0}'],
  ['too many steps', '{"prompt":"a","numInferenceSteps":1001}'],
  ['half a step', '{"prompt":"a","numInferenceSteps":1.5}'],
  ['half a seed', '{"prompt":"a","seed":1.5}'],
  ['a field that nobody knows', '{"prompt":"a","stepz":3}'],
];

describe('bad input is a coded 400', () => {
  test.each([...bad, ...badNative])('on the native route: %s', async (_what, body) => {
    const { status, json } = await product.call('/api/v1/jobs', body);
    expect(status).toBe(400);
    expect(json).toEqual({
      error: {
        code: expect.stringMatching(/^(BODY|REQUEST)_INVALID$/),
        message: expect.any(String),
        hint: expect.any(String),
      },
    });
  });

  test.each(bad)('on the OpenAI route: %s', async (_what, body) => {
    const { status, json } = await product.call('/v1/images/generations', body);
    expect(status).toBe(400);
    expect(json).toMatchObject({ error: { code: expect.stringMatching(/_INVALID$/), type: 'invalid_request_error' } });
  });

  test('a page of another site and a foreign host name are refused', async () => {
    for (const headers of [{ origin: 'https://evil.example' }, { origin: 'null' }]) {
      const response = await fetch(`${product.url}/api/v1/jobs`, { method: 'POST', body: '{"prompt":"a"}', headers });
      expect([response.status, await response.json()]).toMatchObject([403, { error: { code: 'ORIGIN_REFUSED' } }]);
    }
    expect(await raw('GET /api/v1/status HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n')).toContain(
      'ORIGIN_REFUSED',
    );
  });

  test('what is hardly HTTP is answered in the same shape', async () => {
    expect((await product.call('/api/v1/jobs/%E0%A4%A')).json).toMatchObject({ error: { code: 'REQUEST_INVALID' } });
    expect((await product.call(`/api/v1/jobs/${'x'.repeat(3000)}`)).json).toMatchObject({
      error: { code: 'JOB_NOT_FOUND' },
    });
    expect(await raw(`GET / HTTP/1.1\r\nx: ${'y'.repeat(40_000)}\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 431 [\s\S]*HEADERS_TOO_LARGE/,
    );
    expect(await raw('GET\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 [\s\S]*REQUEST_INVALID/);
    expect(await raw('GET /healthz HTTP/1.0\r\n\r\n')).toMatch(/200 OK/);
  });

  test('and what is not there is a coded 404', async () => {
    for (const path of ['/nope', '/api/v1/jobs/nope', '/api/v1/jobs/nope/events', '/api/v1/images/..%2f..%2fjobs.db']) {
      const { status, json } = await product.call(path);
      expect([path, status, json]).toMatchObject([path, 404, { error: { code: expect.stringMatching(/NOT_FOUND$/) } }]);
    }
  });
});

test('status is the same object on the command line and over HTTP', async () => {
  await product.ready();
  const printed = JSON.parse((await cli(['status', '--json', '--data-dir', product.dataDir])).stdout);
  const served = await product.status();
  // What is measured moves on between the two.
  for (const status of [printed, served]) {
    delete status.supervisor.uptimeSeconds;
    delete status.machine.availableBytes;
    for (const child of status.children) delete child.rssBytes;
  }
  expect(printed).toEqual(served);
  expect(served).toMatchObject({
    supervisor: { pid: product.process.pid, version: expect.stringMatching(/^0\.1\.0\+[0-9a-f]{12}$/) },
    children: [
      { name: 'inference', state: 'ready', restarts: 0, lastExit: null, reason: 'ready' },
      { name: 'api', state: 'ready', restarts: 0, lastExit: null, reason: 'ready' },
    ],
    model: { id: 'pocket', state: 'ready', component: null },
    queue: { queued: 0, running: 0, current: null },
  });
});

test('jobs are listed newest first', async () => {
  const { id } = await product.submit({ ...FOX, numInferenceSteps: 1 });
  const { json } = await product.call('/api/v1/jobs?limit=2');
  expect((json as { jobs: Job[] }).jobs.map((job) => job.id)[0]).toBe(id);
  expect((json as { jobs: Job[] }).jobs).toHaveLength(2);
  await product.ended(id);
});

test('logs show what happened', async () => {
  const { stdout } = await cli(['logs', '--data-dir', product.dataDir, '-n', '1000']);
  expect(stdout).toMatch(/inference {3}loading transformer/);
  expect(stdout).toContain('job done');
});
