/** The contract of a job store; a second engine runs the same cases. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { JobRequest } from '@qwen-supervisor/protocol/job';
import type { JobOutcome } from '@qwen-supervisor/protocol/messages';
import type { JobStore } from '@qwen-supervisor/supervisor/job-store';
import { openSqliteJobStore } from '@qwen-supervisor/supervisor/sqlite-job-store';
import { describe, expect, onTestFinished, test } from 'vitest';
import { temporaryFolder } from '../fixture-files.js';

const ENGINES: [string, (folder: string) => JobStore][] = [['SQLite', openSqliteJobStore]];
const REQUEST: JobRequest = {
  prompt: 'a fox',
  negativePrompt: ' ',
  width: 128,
  height: 128,
  numInferenceSteps: 20,
  trueCfgScale: 4,
  seed: 2 ** 53 - 1,
};
const DONE: JobOutcome = { status: 'done', imageId: 'i1', file: 'images/i1.png', sha256: 'ab', bytes: 3 };
const FAILED: JobOutcome = { status: 'failed', error: { code: 'INFERENCE_FAILED', message: 'm', hint: 'h' } };

describe.each(ENGINES)('the job store on %s', (_engine, open) => {
  function store(folder = temporaryFolder()): JobStore {
    const opened = open(folder);
    onTestFinished(() => opened.close());
    return opened;
  }

  test('gives a job back as it was put, queued', async () => {
    const jobs = store();
    const job = await jobs.put(REQUEST);
    expect(job).toMatchObject({
      ...REQUEST,
      status: 'queued',
      step: 0,
      steps: 20,
      attempts: 0,
      images: [],
      error: null,
    });
    expect(await jobs.get(job.id)).toEqual(job);
    expect(await jobs.get('nope')).toBeNull();
  });

  test('claims in the order of arrival and records the attempt', async () => {
    const jobs = store();
    const [a, b] = [await jobs.put(REQUEST), await jobs.put(REQUEST)];
    expect(await jobs.claim()).toMatchObject({ id: a.id, status: 'running', attempts: 1 });
    expect(await jobs.claim()).toMatchObject({ id: b.id });
    expect(await jobs.claim()).toBeNull();
  });

  test('a released job keeps its place and counts its attempts', async () => {
    const jobs = store();
    const [a] = [await jobs.put(REQUEST), await jobs.put(REQUEST)];
    await jobs.claim();
    expect(await jobs.release(a.id, 'none')).toMatchObject({ status: 'queued', attempts: 1 });
    expect(await jobs.release(a.id, 'none')).toBeNull();
    expect(await jobs.claim()).toMatchObject({ id: a.id, attempts: 2 });
  });

  test('a job ends once, and only in the attempt that is running', async () => {
    const jobs = store();
    const { id } = await jobs.put(REQUEST);
    await jobs.claim();
    await jobs.release(id, 'none');
    await jobs.claim();
    expect(await jobs.finish(id, 1, 20, DONE)).toBeNull();
    expect(await jobs.finish(id, 2, 20, DONE)).toMatchObject({
      status: 'done',
      step: 20,
      images: [{ id: 'i1', url: '/api/v1/images/i1', sha256: 'ab' }],
    });
    expect(await jobs.finish(id, 2, 20, FAILED)).toBeNull();
    expect(await jobs.findImage('i1')).toEqual({ file: 'images/i1.png', sha256: 'ab' });
  });

  test('a failed job carries its error', async () => {
    const jobs = store();
    const { id } = await jobs.put(REQUEST);
    await jobs.claim();
    expect(await jobs.finish(id, 1, 3, FAILED)).toMatchObject({
      status: 'failed',
      step: 3,
      error: { code: 'INFERENCE_FAILED' },
    });
  });

  test('only a queued job is cancelled by the store', async () => {
    const jobs = store();
    const [a, b] = [await jobs.put(REQUEST), await jobs.put(REQUEST)];
    await jobs.claim();
    expect(await jobs.cancel(a.id)).toMatchObject({ status: 'running' });
    expect(await jobs.cancel(b.id)).toMatchObject({ status: 'cancelled' });
    expect(await jobs.cancel('nope')).toBeNull();
    expect(await jobs.claim()).toBeNull();
  });

  test('a running job whose cancel was asked for does not come back when its worker or its supervisor dies', async () => {
    const folder = temporaryFolder();
    const before = open(folder);
    const [a, b] = [await before.put(REQUEST), await before.put(REQUEST)];
    for (const { id } of [a, b]) {
      await before.claim();
      await before.cancel(id);
    }
    expect(await before.release(a.id, 'outside')).toMatchObject({ status: 'cancelled', error: null });
    await before.close();
    const after = store(folder);
    expect(await after.recover()).toMatchObject([{ id: b.id, status: 'cancelled' }]);
    expect(await after.claim()).toBeNull();
  });

  test('a job is poisoned by two deaths of the worker itself', async () => {
    const jobs = store();
    const { id } = await jobs.put(REQUEST);
    await jobs.claim();
    expect(await jobs.release(id, 'own')).toMatchObject({ status: 'queued' });
    await jobs.claim();
    expect(await jobs.release(id, 'own')).toMatchObject({ status: 'failed', error: { code: 'JOB_POISONED' } });
    expect(await jobs.claim()).toBeNull();
  });

  test('a job is poisoned by five kills from outside in a row without a step, planned stops not counted', async () => {
    const jobs = store();
    const { id } = await jobs.put(REQUEST);
    const deaths = [
      'outside',
      'outside',
      'outside-after-progress',
      'outside',
      'outside',
      'none',
      'outside',
      'outside',
    ] as const;
    for (const death of deaths) {
      await jobs.claim();
      expect(await jobs.release(id, death), death).toMatchObject({ status: 'queued' });
    }
    await jobs.claim();
    expect(await jobs.release(id, 'outside')).toMatchObject({ status: 'failed', error: { code: 'JOB_POISONED' } });
  });

  test('lists newest first, by status, within a limit, and counts', async () => {
    const jobs = store();
    const ids = [];
    for (let i = 0; i < 4; i++) ids.push((await jobs.put(REQUEST)).id);
    await jobs.claim();
    const list = async (status: 'queued' | null, limit: number) =>
      (await jobs.list({ status, limit })).map(({ id }) => id);
    expect(await list(null, 2)).toEqual([ids[3], ids[2]]);
    expect(await list('queued', 10)).toEqual([ids[3], ids[2], ids[1]]);
    expect(await jobs.counts()).toEqual({ queued: 3, running: 1 });
  });

  test('after a crash the jobs are there, and those that ran wait again', async () => {
    const folder = temporaryFolder();
    const before = open(folder);
    const { id } = await before.put(REQUEST);
    await before.claim();
    await before.close();
    const after = store(folder);
    expect((await after.recover()).map((job) => job.id)).toEqual([id]);
    expect(await after.claim()).toMatchObject({ id, attempts: 2 });
  });
});

describe('the SQLite file', () => {
  test('belongs to one supervisor', () => {
    const folder = temporaryFolder();
    const first = openSqliteJobStore(folder);
    onTestFinished(() => first.close());
    expect(() => openSqliteJobStore(folder)).toThrow(expect.objectContaining({ code: 'ALREADY_RUNNING' }));
  });

  test('that is no database is refused and left as it is', () => {
    const folder = temporaryFolder();
    const file = join(folder, 'jobs.db');
    const content = 'this is not a database, and it is longer than a header '.repeat(50);
    writeFileSync(file, content);
    expect(() => openSqliteJobStore(folder)).toThrow(expect.objectContaining({ code: 'JOB_STORE_UNUSABLE' }));
    expect(readFileSync(file, 'utf8')).toBe(content);
  });
});
