/** The first launcher's endpoints, as its page and its scripts call them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { REPOSITORY } from '../fixture-files.js';
import { type Product, startProduct, until } from './product.js';

const PROMPT = 'a fox on a teal background';

let product: Product;
beforeAll(async () => {
  product = await startProduct();
  await product.ready();
});
afterAll(() => product.clean());

interface Generated {
  success: boolean;
  image_path: string | null;
  message: string;
  generation_time: number | null;
  parameters: Record<string, unknown>;
  job_id: string;
}

const generate = async (body: object, kind = 'text-to-image') =>
  (await product.call(`/generate/${kind}`, body)).json as Generated;
const picture = async (path: string | null) => {
  const response = await product.fetch(`/images/${path?.split('/').pop()}`);
  return sharp(Buffer.from(await response.arrayBuffer())).metadata();
};

test('the root tells programs what is here, and leads browsers to what they can read', async () => {
  expect((await product.call('/')).json).toMatchObject({ name: 'Qwen-Image API', endpoints: { status: '/status' } });
  const accept = 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8';
  const response = await product.fetch('/', { headers: { accept }, redirect: 'manual' });
  expect([response.status, response.headers.get('location')]).toEqual([302, '/app/']);
});

test('status and health have all their fields', async () => {
  const memory = {
    gpu_available: false,
    allocated_gb: expect.any(Number),
    total_gb: expect.any(Number),
    usage_percent: expect.any(Number),
    device_name: 'CPU',
    available_gb: expect.any(Number),
  };
  const status = { model_loaded: true, gpu_available: false, memory_info: memory, queue_size: 0, is_generating: false };
  expect((await product.call('/status')).json).toMatchObject(status);
  expect((await product.call('/health')).json).toMatchObject({
    status: 'healthy',
    timestamp: expect.any(String),
    model_loaded: true,
    gpu_available: false,
    memory_info: memory,
  });
  expect((await product.call('/initialize', '')).json).toEqual({ success: true, message: 'Model already initialized' });
  expect((await product.call('/aspect-ratios')).json).toMatchObject({
    ratios: { '1:1': [128, 128], '16:9': [176, 96] },
  });
});

test('a picture from a prompt, with the fields of its page', async () => {
  const body = {
    prompt: PROMPT,
    negative_prompt: '',
    width: 130,
    height: 130,
    num_inference_steps: 10,
    cfg_scale: 4.0,
    seed: -1,
    language: 'en',
    enhance_prompt: true,
    aspect_ratio: '16:9',
  };
  const made = await generate(body);
  expect(made).toMatchObject({
    success: true,
    message: expect.any(String),
    generation_time: expect.any(Number),
    job_id: expect.any(String),
  });
  expect(made.parameters, 'a suffix only where the model has one').toMatchObject({
    prompt: PROMPT,
    width: 176,
    height: 96,
  });
  expect(await picture(made.image_path)).toMatchObject({ width: 176, height: 96 });
  const plain = await generate({ prompt: PROMPT, width: 100, height: 100, num_inference_steps: 2, seed: 4 });
  expect(plain.parameters).toMatchObject({ width: 96, height: 96, seed: 4 });
});

test('a picture over a picture: one that was sent, or an earlier one by its path; files of the server stay closed', async () => {
  const fox = readFileSync(join(REPOSITORY, 'docs/fox.png')).toString('base64');
  const sent = await generate({ prompt: PROMPT, init_image: fox, strength: 0.5, seed: 4 }, 'image-to-image');
  expect(sent).toMatchObject({ success: true, parameters: { strength: 0.5 } });
  const again = await generate({ prompt: PROMPT, init_image_path: sent.image_path, strength: 0.5 }, 'image-to-image');
  expect(again).toMatchObject({ success: true, image_path: expect.any(String) });
  for (const init_image_path of ['/etc/passwd', '../../../etc/passwd', 'generated_images/../jobs.db']) {
    const { status, json } = await product.call('/generate/image-to-image', { prompt: PROMPT, init_image_path });
    expect([status, json]).toMatchObject([
      400,
      { detail: expect.stringContaining('files of the server are not read') },
    ]);
  }
});

test('while a picture is being made everything answers, what comes is queued with its place, and runs', async () => {
  const slow = await product.submit({ prompt: PROMPT, numInferenceSteps: 150 });
  await until(async () => ((await product.job(slow.id)).step > 0 ? true : null));
  const queued = await generate({ prompt: PROMPT, num_inference_steps: 2 });
  expect(queued).toMatchObject({ success: true, image_path: null, message: 'Request queued. Position: 1' });
  expect((await product.call('/status')).json).toMatchObject({ is_generating: true, queue_size: 1 });
  expect((await product.call('/queue')).json).toMatchObject({
    queue_size: 1,
    is_generating: true,
    queue: [
      { job_id: queued.job_id, type: 'text-to-image', request: { prompt: PROMPT }, timestamp: expect.any(String) },
    ],
  });
  const unwanted = await generate({ prompt: PROMPT });
  const remove = () => product.fetch(`/queue/${unwanted.job_id}`, { method: 'DELETE' });
  expect(await (await remove()).json()).toMatchObject({ success: true });
  expect((await product.job(unwanted.job_id)).status).toBe('cancelled');
  expect((await product.fetch('/queue/job_unknown', { method: 'DELETE' })).status).toBe(404);
  const running = await product.fetch(`/queue/${slow.id}`, { method: 'DELETE' });
  expect(running.status === 409 || (await product.job(slow.id)).status === 'done').toBe(true);
  expect(await product.ended(queued.job_id)).toMatchObject({ status: 'done' });
  expect(await picture(`${queued.job_id}.png`)).toMatchObject({ width: 128 });
});

test('memory is cleared by POST alone, and the next request loads the model again', async () => {
  const get = await product.fetch('/memory/clear');
  expect([get.status, get.headers.get('allow'), await get.json()]).toMatchObject([
    405,
    'POST',
    { detail: expect.stringContaining('POST') },
  ]);
  expect((await product.call('/memory/clear', '')).json).toMatchObject({
    success: true,
    memory_info: expect.any(Object),
  });
  await until(async () => ((await product.status()).model.state === 'unloaded' ? true : null));
  expect(await generate({ prompt: PROMPT, num_inference_steps: 2 })).toMatchObject({
    success: true,
    image_path: expect.any(String),
  });
});

test.each(['../jobs.db', '..%2Fjobs.db', '%2e%2e%2fjobs.db', 'jobs.db', '../../../../etc/passwd', 'job_0.png%00'])(
  'the name %s opens no file',
  async (name) => {
    const response = await product.fetch(`/images/${name}`);
    expect(response.status).toBe(404);
    expect(await response.text()).not.toMatch(/root:|SQLite/);
  },
);
