/** The native API as a page or a script uses it: groups, places, pictures, the model. */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Job } from '@qwen-supervisor/protocol/job';
import { readPngTexts } from '@qwen-supervisor/protocol/png-text';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { REPOSITORY } from '../fixture-files.js';
import { type Product, startProduct, until } from './product.js';

const FOX = { prompt: 'a fox on a teal background', seed: 3 };
const SLOW = { prompt: 'a fox', numInferenceSteps: 1000 };

let product: Product;
beforeAll(async () => {
  product = await startProduct();
  await product.ready();
});
afterAll(() => product.clean());

const bytes = async (path: string, init?: RequestInit) =>
  Buffer.from(await (await product.fetch(path, init)).arrayBuffer());
const sha256 = (data: Uint8Array) => createHash('sha256').update(data).digest('hex');
const patch = async (id: string, body: object) => {
  const response = await product.fetch(`/api/v1/jobs/${id}`, { method: 'PATCH', body: JSON.stringify(body) });
  return { status: response.status, json: (await response.json()) as never };
};
const running = async () => {
  const { id } = await product.submit(SLOW);
  return until(async () => {
    const job = await product.job(id);
    return job.status === 'running' && job.step > 0 ? job : null;
  });
};

describe('jobs', () => {
  test('that are sent together are a group: listed by it, cancelled by it; a bad one among them costs all', async () => {
    const current = await running();
    const jobs = [FOX, { ...FOX, seed: 4 }, { ...FOX, seed: 5 }];
    const { status, json } = await product.call('/api/v1/groups', { jobs });
    const { group, jobs: together } = json as { group: string; jobs: Job[] };
    expect([status, together.map((job) => [job.group, job.seed])]).toEqual([
      202,
      [3, 4, 5].map((seed) => [group, seed]),
    ]);
    const bad = await product.call('/api/v1/groups', { jobs: [FOX, { ...FOX, width: 17 }] });
    expect([bad.status, bad.json]).toMatchObject([
      400,
      { error: { message: expect.stringMatching(/^jobs\.1\.width: /) } },
    ]);
    const { jobs: listed } = (await product.call(`/api/v1/jobs?group=${group}`)).json as { jobs: Job[] };
    expect(listed.map(({ id }) => id)).toEqual(together.map(({ id }) => id).reverse());

    expect((await product.call('/api/v1/jobs/cancel', { scope: 'group', group })).json).toEqual({ cancelled: 3 });
    for (const { id } of together) expect(await product.job(id)).toMatchObject({ status: 'cancelled' });
    expect(await product.job(current.id), 'the others are left alone').toMatchObject({ status: 'running' });
    expect((await product.call('/api/v1/jobs/cancel', { scope: 'running' })).json).toEqual({ cancelled: 1 });
    expect(await product.ended(current.id)).toMatchObject({ status: 'cancelled' });
  });

  test('tell their place and their time, and take another place when asked', async () => {
    const current = await running();
    expect(current.eta).toMatchObject({ low: expect.any(Number), high: expect.any(Number) });
    const [a, b, c] = (await Promise.all([1, 2, 3].map((seed) => product.submit({ ...FOX, seed })))) as [Job, Job, Job];
    const places = async () => {
      const jobs = await Promise.all([a, b, c].map(({ id }) => product.job(id)));
      return jobs.map(({ position }) => position);
    };
    const before = await places();
    expect(before.toSorted()).toEqual([1, 2, 3]);
    const [first, last] = [a, b, c]
      .toSorted((x, y) => (x.position ?? 0) - (y.position ?? 0))
      .map(({ id }) => id)
      .filter((_, i) => i !== 1);
    expect((await patch(last as string, { before: first })).json).toMatchObject({ id: last, position: 1 });
    expect((await patch(first as string, { priority: 7 })).json).toMatchObject({ id: first, position: 1, priority: 7 });
    expect((await patch(current.id, { priority: 7 })).json).toMatchObject({ error: { code: 'JOB_NOT_QUEUED' } });
    expect((await patch(last as string, {})).json).toMatchObject({ error: { code: 'REQUEST_INVALID' } });
    // At one moment: what is expected changes with every step of the one that runs.
    const { jobs } = (await product.call(`/api/v1/jobs?ids=${last},${first}`)).json as { jobs: Job[] };
    const lowOf = (wanted: string | undefined) => jobs.find(({ id }) => id === wanted)?.eta?.low ?? Number.NaN;
    expect(lowOf(last)).toBeGreaterThan(lowOf(first));
    await product.call('/api/v1/jobs/cancel', { scope: 'queued' });
    expect((await product.status()).queue).toMatchObject({ queued: 0, running: 1 });
    await product.call('/api/v1/jobs/cancel', { scope: 'running' });
    await product.ended(current.id);
  });

  test('that are interrupted end with the picture that they have reached', async () => {
    const current = await running();
    await product.call(`/api/v1/jobs/${current.id}/interrupt`, '');
    const job = await product.ended(current.id);
    expect(job).toMatchObject({ status: 'done', error: null });
    expect(job.step).toBeGreaterThan(0);
    expect(job.step).toBeLessThan(1000);
    expect(await sharp(await bytes(job.images[0]?.url as string)).metadata()).toMatchObject({
      width: 128,
      height: 128,
    });
  });

  test('come a page at a time; those that have ended can be forgotten, with their pictures', async () => {
    const job = await product.ended((await product.submit({ ...FOX, numInferenceSteps: 1 })).id);
    await bytes(`/api/v1/images/${job.id}/thumbnail`);
    const ids: string[] = [];
    for (let path = '/api/v1/jobs?limit=2'; path !== ''; ) {
      const { jobs, next } = (await product.call(path)).json as { jobs: Job[]; next: number | null };
      ids.push(...jobs.map(({ id }) => id));
      path = next === null ? '' : `/api/v1/jobs?limit=2&cursor=${next}`;
    }
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids[0]).toBe(job.id);
    const files = () => readdirSync(join(product.dataDir, 'images')).filter((name) => name.startsWith(job.id));
    expect(files()).toHaveLength(2);
    const forget = () => product.fetch(`/api/v1/jobs/${job.id}`, { method: 'DELETE' });
    expect((await forget()).status).toBe(204);
    expect(files()).toEqual([]);
    expect((await forget()).status).toBe(404);
    const current = await running();
    const refused = await product.fetch(`/api/v1/jobs/${current.id}`, { method: 'DELETE' });
    expect([refused.status, await refused.json()]).toMatchObject([409, { error: { code: 'JOB_NOT_ENDED' } }]);
    await product.call(`/api/v1/jobs/${current.id}/cancel`, '');
  });
});

describe('a picture', () => {
  let job: Job;
  beforeAll(async () => {
    job = await product.ended((await product.submit(FOX)).id);
  });

  test('comes as it was written, as JPEG or WebP, and as a thumbnail', async () => {
    const url = job.images[0]?.url as string;
    expect(sha256(await bytes(url))).toBe(job.images[0]?.sha256);
    for (const format of ['jpeg', 'webp'] as const) {
      const response = await product.fetch(`${url}?format=${format}&quality=80`);
      expect(response.headers.get('content-type')).toBe(`image/${format}`);
      const metadata = await sharp(Buffer.from(await response.arrayBuffer())).metadata();
      expect(metadata).toMatchObject({ format, width: 128, height: 128 });
    }
    const thumbnail = await bytes(`${url}/thumbnail`);
    expect(await sharp(thumbnail).metadata()).toMatchObject({ format: 'webp', width: 128 });
    expect(await bytes(`${url}/thumbnail`), 'the second time as it was kept').toEqual(thumbnail);
  });

  test.each(['', '?format=webp', '/thumbnail'])('is fetched once: %s', async (more) => {
    const url = job.images[0]?.url + more;
    const etag = (await product.fetch(url)).headers.get('etag') as string;
    const again = await product.fetch(url, { headers: { 'if-none-match': `"other", W/${etag}` } });
    expect([again.status, await again.text()]).toEqual([304, '']);
  });

  test('tells how it was made: in the file, as A1111 does and as JSON, and over HTTP', async () => {
    const texts = readPngTexts(await bytes(job.images[0]?.url as string));
    expect(texts.parameters).toBe(
      'a fox on a teal background\nSteps: 20, Sampler: Euler, CFG scale: 4, Seed: 3, Size: 128x128, Model: pocket',
    );
    expect(JSON.parse(texts['qwen-supervisor'] as string)).toMatchObject({ model: 'pocket', request: { seed: 3 } });
    const metadata = (await product.call(`/api/v1/images/${job.id}/metadata`)).json;
    expect(metadata).toMatchObject({ id: job.id, request: { ...FOX, width: 128 }, parameters: texts.parameters });
  });

  test('of the same job again has the same bytes; they say nothing of when and where', async () => {
    const again = await product.ended((await product.submit(FOX)).id);
    expect(again.images[0]?.sha256).toBe(job.images[0]?.sha256);
    expect((await bytes(job.images[0]?.url as string)).includes(job.id)).toBe(false);
  });

  test('is in the index of all pictures, newest first', async () => {
    const { pictures } = (await product.call('/api/v1/images')).json as {
      pictures: [string, number, number, number, 0 | 1][];
    };
    expect(pictures.map(([id]) => id)).toContain(job.id);
    expect(pictures.find(([id]) => id === job.id)).toEqual([job.id, 128, 128, Date.parse(job.finishedAt as string), 0]);
  });
});

describe('a picture that is drawn over', () => {
  const source = readFileSync(join(REPOSITORY, 'docs/fox.png'));
  const over = (initImage: string, more: object = {}) => product.submit({ ...FOX, initImage, ...more });

  test('changes the more, the greater the strength; without one at all it is another picture', async () => {
    const fox = await pixels(source);
    const distances = [];
    for (const strength of [0.2, 0.6, 1]) {
      const job = await product.ended((await over(source.toString('base64'), { strength, seed: 8 })).id);
      expect(job).toMatchObject({ status: 'done', steps: Math.trunc(20 * strength), step: Math.trunc(20 * strength) });
      distances.push(distance(fox, await pixels(await bytes(job.images[0]?.url as string))));
    }
    expect(distances).toEqual(distances.toSorted((a, b) => a - b));
    expect(distances[0]).toBeLessThan(10);
  });

  test('may come as base64, as a data: URL, in any format, upright, or be an earlier one of this server', async () => {
    const earlier = await product.ended((await product.submit(FOX)).id);
    const jpeg = await sharp(source).resize(64, 96, { fit: 'fill' }).jpeg().withMetadata({ orientation: 6 }).toBuffer();
    const jobs = await Promise.all([
      over(`data:image/png;base64,${source.toString('base64')}`),
      over(earlier.id),
      over(jpeg.toString('base64')),
    ]);
    const [first, second, third] = (await Promise.all(jobs.map(({ id }) => product.ended(id)))) as [Job, Job, Job];
    expect([first.status, second.status]).toEqual(['done', 'done']);
    expect(third, 'its shape, as it is to be seen').toMatchObject({ status: 'done', width: 96, height: 64 });
  });

  test('survives the death of the worker in the middle of it, bit by bit', async () => {
    const request = { strength: 0.9, numInferenceSteps: 200, seed: 9 };
    const image = source.toString('base64');
    const undisturbed = await product.ended((await over(image, request)).id);
    const { id } = await over(image, request);
    await until(async () => ((await product.job(id)).step > 20 ? true : null));
    process.kill(await product.pidOf('inference'), 'SIGKILL');
    const job = await product.ended(id);
    expect(job).toMatchObject({ status: 'done', attempts: 2, steps: 180 });
    expect(job.resumedAtStep).toBeGreaterThan(19);
    expect(job.images[0]?.sha256).toBe(undisturbed.images[0]?.sha256);
  });

  test('is stored once, as pixels alone, and not kept longer than its job', async () => {
    const inputs = () => readdirSync(join(product.dataDir, 'inputs'));
    const before = inputs().length;
    const secret = await sharp(source)
      .withExif({ IFD0: { Artist: 'somebody' } })
      .resize(48)
      .jpeg()
      .toBuffer();
    const jobs = await Promise.all([1, 2].map((seed) => over(secret.toString('base64'), { seed })));
    expect(inputs().length).toBe(before + 1);
    const name = `${jobs[0]?.initImage}.png`;
    expect(readFileSync(join(product.dataDir, 'inputs', name)).includes('somebody')).toBe(false);
    expect(existsSync(join(product.dataDir, 'inputs', name))).toBe(true);
  });

  test.each([
    ['what is no picture', Buffer.from('hello').toString('base64')],
    ['text that is not base64', '<svg xmlns="http://www.w3.org/2000/svg"/>'],
    [
      'an SVG, which may name files and hosts',
      Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>').toString('base64'),
    ],
    ['a picture that was cut off', source.subarray(0, 9000).toString('base64')],
  ])('is refused, with a code, where it is %s', async (_what, initImage) => {
    const { status, json } = await product.call('/api/v1/jobs', { ...FOX, initImage });
    expect([status, json]).toMatchObject([400, { error: { code: 'UPLOAD_INVALID' } }]);
  });

  test('is refused where it claims more pixels than anybody should decode', async () => {
    const bomb = await sharp({ create: { width: 12_000, height: 12_000, channels: 3, background: 'red' } })
      .png()
      .toBuffer();
    expect(bomb.length, 'small enough to be sent').toBeLessThan(4e6);
    const { status, json } = await product.call('/api/v1/jobs', { ...FOX, initImage: bomb.toString('base64') });
    expect([status, json]).toMatchObject([400, { error: { code: 'UPLOAD_INVALID' } }]);
  });
});

describe('the model', () => {
  test('is listed with its sizes, unloaded on request, and loaded by the next job', async () => {
    const { models } = (await product.call('/api/v1/models')).json as { models: object[] };
    expect(models).toMatchObject([{ id: 'pocket', state: 'ready', sizes: { '1:1': [128, 128] } }]);
    await until(async () => ((await product.status()).queue.running === 0 ? true : null));
    const before = (await product.status()).children[0]?.restarts;
    expect((await product.call('/api/v1/models/pocket/unload', '')).status).toBe(202);
    await until(async () => ((await product.status()).children[0]?.state === 'stopped' ? true : null));
    expect((await product.status()).model.state).toBe('unloaded');
    expect((await product.fetch('/readyz')).status, 'work is taken').toBe(200);
    const job = await product.submit({ ...FOX, numInferenceSteps: 1 });
    expect(await product.ended(job.id)).toMatchObject({ status: 'done', attempts: 1 });
    expect((await product.status()).children[0]?.restarts, 'nobody is blamed').toBe(before);
  });

  test('is loaded ahead of jobs when asked, and not unloaded under one', async () => {
    await product.call('/api/v1/models/pocket/unload', '');
    await until(async () => ((await product.status()).children[0]?.state === 'stopped' ? true : null));
    expect((await product.call('/api/v1/models/pocket/load', '')).status).toBe(202);
    await product.ready();
    const current = await running();
    const refused = await product.call('/api/v1/models/pocket/unload', '');
    expect([refused.status, refused.json]).toMatchObject([409, { error: { code: 'MODEL_IN_USE' } }]);
    await product.call(`/api/v1/jobs/${current.id}/cancel`, '');
    expect((await product.call('/api/v1/models/other/load', '')).status).toBe(404);
  });
});

test('the document describes every route that is there, and the page to read it needs nothing from elsewhere', async () => {
  const { json } = await product.call('/openapi.json');
  const { openapi, paths } = json as { openapi: string; paths: Record<string, object> };
  expect(openapi).toBe('3.1.0');
  for (const path of [
    '/api/v1/jobs/{id}',
    '/v1/images/edits',
    '/sdapi/v1/txt2img',
    '/generate/text-to-image',
    '/metrics',
  ])
    expect(paths).toHaveProperty([path]);
  const page = await (await product.fetch('/docs/')).text();
  const elsewhere = [...page.matchAll(/(?:src|href)="([^"]+)"/g)].filter(([, url]) =>
    /^(https?:)?\/\//.test(url as string),
  );
  expect([page.includes('swagger-ui'), elsewhere]).toEqual([true, []]);
});

async function pixels(png: Uint8Array): Promise<Buffer> {
  return sharp(png).removeAlpha().resize(128, 128, { fit: 'fill' }).raw().toBuffer();
}

/** Mean difference of the colours. */
function distance(a: Buffer, b: Buffer): number {
  return a.reduce((sum, value, i) => sum + Math.abs(value - (b[i] as number)), 0) / a.length;
}
