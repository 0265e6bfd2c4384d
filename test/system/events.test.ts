/** What listeners hear over HTTP, and what they miss: nothing. */
import { connect } from 'node:net';
import type { Job } from '@qwen-supervisor/protocol/job';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readEvents, type ServerEvent } from './event-reader.js';
import { type Product, startProduct, until } from './product.js';

const FOX = { prompt: 'a fox on a teal background', seed: 3 };

const LONG = 'a fox, '.repeat(2800);
/** A group that makes four megabytes of events. */
const LARGE = Array.from({ length: 100 }, () => ({ prompt: LONG, negativePrompt: LONG, width: 16, height: 16 }));

let product: Product;
beforeAll(async () => {
  product = await startProduct();
});
afterAll(() => product.clean());

const names = (events: ServerEvent[]) => events.map(({ name }) => name);
const ofJob = (id: string) => (event: ServerEvent) =>
  (event.data as { id?: string; job?: string }).id === id || (event.data as { job?: string }).job === id;

test('while the model loads a waiting job hears how far the load is, then its own story to the end', async () => {
  const { id } = await product.submit({ ...FOX, numInferenceSteps: 10 });
  const reader = await readEvents(`${product.url}/api/v1/jobs/${id}/events`);
  await reader.ended;
  const [first] = reader.events;
  expect(first).toMatchObject({ name: 'job', data: { id, status: 'queued', position: 1 } });
  const loading = reader.events.find(({ name }) => name === 'loading');
  expect(loading?.data).toMatchObject({ component: expect.any(String), bytes: expect.any(Number), total: 40301868 });
  const own = names(reader.events).filter((name) => name !== 'loading');
  expect(own).toEqual(['job', 'running', ...Array(10).fill('step'), 'decoding', 'image', 'done']);
  const steps = reader.events.filter(({ name }) => name === 'step').map(({ data }) => data as never);
  expect(steps.map(({ i, n }) => [i, n])).toEqual(Array.from({ length: 10 }, (_, i) => [i + 1, 10]));
  expect((steps.at(-2) as never as { eta: object }).eta).toMatchObject({ low: expect.any(Number) });
  const { preview } = steps.find(({ preview: shown }) => shown) as unknown as { preview: string };
  const size = { format: 'png', width: 16, height: 16 };
  expect(await sharp(Buffer.from(preview, 'base64')).metadata()).toMatchObject(size);
});

test('of a job that has ended a new listener hears at once, and one that comes back is told not to: 204', async () => {
  const { id } = await product.submit({ ...FOX, numInferenceSteps: 1 });
  await product.ended(id);
  const reader = await readEvents(`${product.url}/api/v1/jobs/${id}/events`);
  await reader.ended;
  expect(names(reader.events)).toEqual(['job', 'image', 'done']);
  const last = reader.events.at(-1)?.id as string;
  const back = await product.fetch(`/api/v1/jobs/${id}/events`, { headers: { 'last-event-id': last } });
  expect(back.status, 'as a browser does when a stream ends').toBe(204);
  const all = await readEvents(`${product.url}/api/v1/events?lastEventId=${await startOfRun()}`);
  const { id: live } = await all.next((event) => event.name === 'done' && ofJob(id)(event));
  all.close();
  const again = await product.fetch(`/api/v1/jobs/${id}/events`, { headers: { 'last-event-id': live as string } });
  expect(again.status).toBe(204);
});

/** An id from before everything. */
async function startOfRun(): Promise<string> {
  const { lastEventId } = (await product.call('/api/v1/snapshot')).json as { lastEventId: string };
  return lastEventId.replace(/-\d+$/, '-0');
}

test('who comes back with the id of its last event hears what it has missed, in order, also from a new API process', async () => {
  const reader = await readEvents(`${product.url}/api/v1/events`);
  const { id } = await product.submit({ ...FOX, numInferenceSteps: 3 });
  const queued = await reader.next((event) => event.name === 'queued' && ofJob(id)(event));
  reader.close();
  await product.ended(id);

  process.kill(await product.pidOf('api'), 'SIGKILL');
  const headers = { 'last-event-id': queued.id as string };
  const later = await readEvents(`${product.url}/api/v1/events`, headers);
  await later.next((event) => event.name === 'done');
  const story = names(later.events.filter(ofJob(id)));
  expect(story.filter((name) => name !== 'step')).toEqual(['running', 'decoding', 'image', 'done']);
  // The query says the same, for those who cannot set headers; a browser that comes back sends both, and the header
  // is newer.
  const done = later.events.find(({ name }) => name === 'done')?.id as string;
  later.close();
  const both = await readEvents(`${product.url}/api/v1/events?lastEventId=${queued.id}`, { 'last-event-id': done });
  await product.submit({ ...FOX, numInferenceSteps: 1 });
  const next = await both.next((event) => event.name === 'queued');
  expect(ofJob(id)(next)).toBe(false);
  both.close();
});

test('an id that is too old, of another run, or no id at all is answered with reset and the id to go on from', async () => {
  for (const lastEventId of ['0123456789ab-5', 'nonsense']) {
    const reader = await readEvents(`${product.url}/api/v1/events?lastEventId=${lastEventId}`);
    const reset = await reader.next(({ name }) => name === 'reset');
    expect(reset.id).toBe((reset.data as { lastEventId: string }).lastEventId);
    reader.close();
  }
  const job = await product.submit({ ...FOX, numInferenceSteps: 1 });
  const reader = await readEvents(`${product.url}/api/v1/jobs/${job.id}/events?lastEventId=nonsense`);
  await reader.ended;
  expect(names(reader.events)[0], 'of one job the snapshot is the job').toBe('job');
});

test('between a snapshot and the events after it nothing is missing', async () => {
  const submitted: Job[] = [];
  const feeding = (async () => {
    for (let i = 0; i < 12; i++) submitted.push(await product.submit({ ...FOX, numInferenceSteps: 1, seed: i }));
  })();
  await until(async () => (submitted.length > 3 ? true : null));
  const snapshot = (await product.call('/api/v1/snapshot')).json as never as {
    lastEventId: string;
    queue: Job[];
    running: Job | null;
  };
  const reader = await readEvents(`${product.url}/api/v1/events?lastEventId=${snapshot.lastEventId}`);
  await feeding;
  for (const { id } of submitted) {
    await product.ended(id);
    const inSnapshot = [...snapshot.queue, snapshot.running].some((job) => job?.id === id);
    const before = submitted.findIndex((job) => job.id === id) < 4;
    const told = () => reader.events.some((event) => event.name === 'done' && ofJob(id)(event));
    // Whoever was not done in the snapshot is told to be done afterwards.
    if (inSnapshot || !before) await until(async () => (told() ? true : null));
  }
  reader.close();
});

test('megabytes that were missed are heard', async () => {
  await product.ready();
  const blocker = await product.submit({ ...FOX, numInferenceSteps: 1000 });
  const { lastEventId } = (await product.call('/api/v1/snapshot')).json as { lastEventId: string };
  await product.call('/api/v1/groups', { jobs: LARGE.slice(0, 40) });
  const reader = await readEvents(`${product.url}/api/v1/events?lastEventId=${lastEventId}`);
  await until(async () => (reader.events.filter(({ name }) => name === 'queued').length === 40 ? true : null));
  expect(names(reader.events)).not.toContain('reset');
  reader.close();
  await product.call('/api/v1/jobs/cancel', { scope: 'queued' });
  await product.call(`/api/v1/jobs/${blocker.id}/cancel`, '');
});

test('a large queue is cancelled without anybody being cut off', async () => {
  const api = await product.pidOf('api');
  const blocker = await product.submit({ ...FOX, numInferenceSteps: 1000 });
  for (let i = 0; i < 6; i++) expect((await product.call('/api/v1/groups', { jobs: LARGE })).status).toBe(202);
  const reader = await readEvents(`${product.url}/api/v1/events`);
  expect((await product.call('/api/v1/jobs/cancel', { scope: 'queued' })).json).toEqual({ cancelled: 600 });
  await until(async () => (reader.events.filter(({ name }) => name === 'cancelled').length === 600 ? true : null));
  reader.close();
  await product.call(`/api/v1/jobs/${blocker.id}/cancel`, '');
  expect(await product.pidOf('api')).toBe(api);
});

test('a listener that does not read is dropped, and nobody else notices', async () => {
  const slow = connect(Number(new URL(product.url).port), '127.0.0.1');
  slow.write('GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n');
  slow.pause();
  const closed = new Promise((resolve) => slow.on('close', resolve));
  slow.on('error', () => {});
  const reader = await readEvents(`${product.url}/api/v1/events`);
  // Prompts make events large; each group is told of twice.
  const blocker = await product.submit({ ...FOX, numInferenceSteps: 1000 });
  for (let i = 0; i < 4; i++) {
    await product.call('/api/v1/groups', { jobs: LARGE });
    await product.call('/api/v1/jobs/cancel', { scope: 'queued' });
  }
  await product.call(`/api/v1/jobs/${blocker.id}/cancel`, '');
  const { id } = await product.submit({ ...FOX, numInferenceSteps: 1 });
  await reader.next((event) => event.name === 'done' && ofJob(id)(event));
  reader.close();
  slow.resume();
  await closed;
});

test('an idle stream has a sign of life now and then', async () => {
  const reader = await readEvents(`${product.url}/api/v1/events`);
  await until(async () => (reader.comments > 0 ? true : null));
  reader.close();
});
