/** The contract of a job store; a second engine runs the same cases. */
import { existsSync, openSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Idempotency, Job } from '@qwen-supervisor/protocol/job';
import { openDatabase, openSqliteJobStore } from '@qwen-supervisor/supervisor/jobs/sqlite-database';
import { sqliteJobStore } from '@qwen-supervisor/supervisor/jobs/sqlite-job-store';
import Database from 'libsql';
import { describe, expect, onTestFinished, test } from 'vitest';
import { temporaryFolder } from '../../fixture-files.js';
import { ANY, DONE, engines, FAILED, MANY, opened, order, put, REQUEST, TAKES_ANY } from './job-store-cases.js';

describe.each(engines())('the job store on %s', (_engine, open) => {
  const store = (folder?: string) => opened(open, folder);

  test('gives a job back as it was put, queued', async () => {
    const jobs = await store();
    const job = await put(jobs);
    expect(job).toMatchObject({
      ...REQUEST,
      status: 'queued',
      step: 0,
      steps: 20,
      attempts: 0,
      priority: 0,
      retryOf: null,
      resumedAtStep: null,
      startedOverReason: null,
      images: [],
      error: null,
      finishedAt: null,
    });
    expect(await jobs.get(job.id)).toEqual(job);
    expect(await jobs.get('nope')).toBeNull();
  });

  test('claims in the order of arrival and records the attempt', async () => {
    const jobs = await store();
    const [a, b] = [await put(jobs), await put(jobs)];
    expect(await jobs.claim(TAKES_ANY)).toMatchObject({ id: a.id, status: 'running', attempts: 1 });
    expect(await jobs.claim(TAKES_ANY)).toMatchObject({ id: b.id });
    expect(await jobs.claim(TAKES_ANY)).toBeNull();
  });

  test('claims higher priorities first, equal ones in the order of arrival', async () => {
    const jobs = await store();
    const ids = [];
    for (const priority of [0, -5, 10, 0, 10]) ids.push((await put(jobs, priority)).id);
    const claimed = [];
    for (const _ of ids) claimed.push((await jobs.claim(TAKES_ANY))?.id);
    expect(claimed).toEqual([ids[2], ids[4], ids[0], ids[3], ids[1]]);
  });

  test('holds no more waiting jobs than it may, and takes several orders or none of them', async () => {
    const jobs = await store();
    await jobs.put([order(), order()], null, 3, MANY);
    await expect(jobs.put([order(), order()], null, 3, MANY)).rejects.toMatchObject({ code: 'QUEUE_FULL' });
    expect(await jobs.counts()).toEqual({ queued: 2, running: 0 });
    await jobs.claim(TAKES_ANY);
    expect((await jobs.put([order(), order()], null, 3, MANY)).jobs).toHaveLength(2);
  });

  test('one owner has no more than its share of the queue', async () => {
    const jobs = await opened(open);
    const own = (owner: string) => ({ ...order(), owner });
    await jobs.put([own('a'), own('a')], null, MANY, 2);
    await expect(jobs.put([own('a')], null, MANY, 2)).rejects.toMatchObject({ code: 'QUEUE_FULL' });
    expect((await jobs.put([own('b')], null, MANY, 2)).jobs).toHaveLength(1);
    expect((await jobs.put([order(), order(), order()], null, MANY, 2)).jobs, 'nobody is nobody').toHaveLength(3);
  });

  test('a repeated key gives the jobs of its first use, also when the queue is full and after a restart', async () => {
    const folder = temporaryFolder();
    const before = await open(folder);
    const key: Idempotency = { key: 'k', fingerprint: 'f' };
    const { jobs: first, replayed } = await before.put([order(), order()], key, 2, MANY);
    expect(replayed).toBe(false);
    await before.claim(TAKES_ANY);
    await before.close();
    const after = await store(folder);
    const again = await after.put([order(), order()], key, 2, MANY);
    expect(again.replayed).toBe(true);
    expect(again.jobs.map(({ id }) => id)).toEqual(first.map(({ id }) => id));
    expect(again.jobs[0]).toMatchObject({ status: 'running' });
    expect([await after.knows('k'), await after.knows('other')]).toEqual([true, false]);
    await expect(after.put([order()], { key: 'k', fingerprint: 'other' }, MANY, MANY)).rejects.toMatchObject({
      code: 'IDEMPOTENCY_KEY_REUSED',
    });
  });

  test('a released job keeps its step, and the attempt tells where it began', async () => {
    const jobs = await store();
    const { id } = await put(jobs);
    await jobs.claim(TAKES_ANY);
    expect(await jobs.begin(id, 1, { step: 0, startedOverReason: null, device: 'cpu', model: 'm' })).toMatchObject({
      resumedAtStep: null,
    });
    expect(await jobs.release(id, 1, 'outside-after-progress', 7)).toMatchObject({ status: 'queued', step: 7 });
    expect(await jobs.claim(TAKES_ANY)).toMatchObject({ step: 7 });
    expect(await jobs.begin(id, 2, { step: 7, startedOverReason: null, device: 'cpu', model: 'm' })).toMatchObject({
      step: 7,
      resumedAtStep: 7,
    });
    await jobs.release(id, 2, 'none', 8);
    await jobs.claim(TAKES_ANY);
    expect(await jobs.begin(id, 2, { step: 0, startedOverReason: 'late', device: 'cpu', model: 'm' })).toBeNull();
    expect(
      await jobs.begin(id, 3, { step: 0, startedOverReason: 'other model', device: 'cpu', model: 'm' }),
    ).toMatchObject({
      step: 0,
      resumedAtStep: null,
      startedOverReason: 'other model',
    });
  });

  test('a released job keeps its place and counts its attempts', async () => {
    const jobs = await store();
    const [a] = [await put(jobs), await put(jobs)];
    await jobs.claim(TAKES_ANY);
    expect(await jobs.release(a.id, 1, 'none', 0)).toMatchObject({ status: 'queued', attempts: 1 });
    expect(await jobs.release(a.id, 1, 'none', 0)).toBeNull();
    expect(await jobs.claim(TAKES_ANY)).toMatchObject({ id: a.id, attempts: 2 });
    expect(await jobs.release(a.id, 1, 'own', 0), 'of an attempt that is over').toBeNull();
  });

  test('an id that is no text, and a text that is no good one, harm nobody', async () => {
    const jobs = await store();
    const odd = { ...REQUEST, prompt: 'a\0b \ud800 c', negativePrompt: '\0' };
    const { id } = (await jobs.put([order(0, odd)], null, MANY, MANY)).jobs[0] as Job;
    expect(await jobs.get(id)).toMatchObject(odd);
    expect(await jobs.get('\0')).toBeNull();
    expect(await jobs.cancel('\0')).toBeNull();
    expect(await jobs.cancelQueued('\0')).toEqual([]);
    expect(await jobs.mark(['\0'], { starred: true, trashed: null })).toEqual([]);
    await jobs.claim(TAKES_ANY);
    await jobs.finish(id, 1, 20, DONE);
    const all = { search: 'a\0', starred: null, trashed: false, model: null, width: null, height: null };
    expect((await jobs.pictures({ ...all, search: null }, null, 10)).pictures).toHaveLength(1);
    await jobs.pictures(all, null, 10);
    expect((await jobs.facets()).sizes).toHaveLength(1);
    expect(await jobs.inputs()).toEqual(new Set());
  });

  test('a job ends once, and only in the attempt that is running', async () => {
    const jobs = await store();
    const { id } = await put(jobs);
    await jobs.claim(TAKES_ANY);
    await jobs.release(id, 1, 'none', 0);
    await jobs.claim(TAKES_ANY);
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
    const jobs = await store();
    const { id } = await put(jobs);
    await jobs.claim(TAKES_ANY);
    expect(await jobs.finish(id, 1, 3, FAILED)).toMatchObject({
      status: 'failed',
      step: 3,
      error: { code: 'INFERENCE_FAILED' },
    });
  });

  test('only a queued job is cancelled by the store', async () => {
    const jobs = await store();
    const [a, b] = [await put(jobs), await put(jobs)];
    await jobs.claim(TAKES_ANY);
    expect(await jobs.cancel(a.id)).toMatchObject({ status: 'running' });
    expect(await jobs.cancel(b.id)).toMatchObject({ status: 'cancelled' });
    expect(await jobs.cancel('nope')).toBeNull();
    expect(await jobs.claim(TAKES_ANY)).toBeNull();
  });

  test('a running job whose cancel was asked for does not come back when its worker or its supervisor dies', async () => {
    const folder = temporaryFolder();
    const before = await open(folder);
    const [a, b] = [await put(before), await put(before)];
    for (const { id } of [a, b]) {
      await before.claim(TAKES_ANY);
      await before.cancel(id);
    }
    expect(await before.release(a.id, 1, 'outside', 0)).toMatchObject({ status: 'cancelled', error: null });
    await before.close();
    const after = await store(folder);
    expect(await after.recover(() => 0)).toMatchObject([{ id: b.id, status: 'cancelled' }]);
    expect(await after.claim(TAKES_ANY)).toBeNull();
  });

  test('a job is poisoned by two deaths of the worker itself', async () => {
    const jobs = await store();
    const { id } = await put(jobs);
    await jobs.claim(TAKES_ANY);
    expect(await jobs.release(id, 1, 'own', 0)).toMatchObject({ status: 'queued' });
    await jobs.claim(TAKES_ANY);
    expect(await jobs.release(id, 2, 'own', 0)).toMatchObject({ status: 'failed', error: { code: 'JOB_POISONED' } });
    expect(await jobs.claim(TAKES_ANY)).toBeNull();
  });

  test('a job is poisoned by five kills from outside in a row without a step, planned stops not counted', async () => {
    const jobs = await store();
    const { id } = await put(jobs);
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
      const attempt = (await jobs.claim(TAKES_ANY))?.attempts as number;
      expect(await jobs.release(id, attempt, death, 0), death).toMatchObject({ status: 'queued' });
    }
    await jobs.claim(TAKES_ANY);
    expect(await jobs.release(id, deaths.length + 1, 'outside', 0)).toMatchObject({
      status: 'failed',
      error: { code: 'JOB_POISONED' },
    });
  });

  test('a job that dies with its supervisor is poisoned at the fifth time in a row without a step', async () => {
    const jobs = await store();
    const { id } = await put(jobs);
    for (const step of [0, 0, 2, 2, 2, 2]) {
      await jobs.claim(TAKES_ANY);
      expect(await jobs.recover(() => step)).toMatchObject([{ id, status: 'queued', step }]);
    }
    await jobs.claim(TAKES_ANY);
    expect(await jobs.recover(() => 2)).toMatchObject([{ status: 'queued' }]);
    await jobs.claim(TAKES_ANY);
    expect(await jobs.recover(() => 2)).toMatchObject([{ status: 'failed', error: { code: 'JOB_POISONED' } }]);
  });

  test('names what is too old or too much, newest pictures kept, and forgets it when told', async () => {
    const jobs = await store();
    const ids: string[] = [];
    for (let i = 0; i < 14; i++) {
      const { id } = await put(jobs);
      ids.push(id);
      await jobs.claim(TAKES_ANY);
      const file = { imageId: id, file: `images/${id}.png`, sha256: 'ab', bytes: 100 };
      await jobs.finish(id, 1, 20, i === 1 ? FAILED : { status: 'done', step: 20, ...file });
    }
    await put(jobs);
    const expired = async (finishedBefore: string | null, keepBytes: number | null) =>
      (await jobs.expired({ finishedBefore, trashedBefore: null, keepBytes })).map(({ id }) => id).sort();
    expect(await expired(null, null)).toEqual([]);
    expect(await expired(null, 1300)).toEqual([]);
    expect(await expired(null, 1250)).toEqual([ids[0]]);
    // The newest ten pictures are never too large.
    expect(await expired(null, 1)).toEqual([ids[0], ids[2], ids[3]].sort());
    expect(await expired('9999', null)).toEqual([...ids].sort());
    expect(await jobs.expired({ finishedBefore: null, trashedBefore: null, keepBytes: 1250 })).toEqual([
      { id: ids[0], file: `images/${ids[0]}.png` },
    ]);
    await jobs.remove([ids[0] as string]);
    expect(await jobs.get(ids[0] as string)).toBeNull();
    expect((await jobs.list(ANY, null, 20)).jobs).toHaveLength(14);
  });

  test('does not forget a job that has not ended', async () => {
    const jobs = await store();
    const { id } = await put(jobs);
    await jobs.remove([id]);
    expect(await jobs.get(id)).not.toBeNull();
  });

  test('does not grow with the number of its operations', async () => {
    const jobs = await store();
    const { id } = await put(jobs);
    const ask = async (times: number) => {
      for (let i = 0; i < times; i++) {
        await jobs.get(id);
        await jobs.counts();
      }
      return process.memoryUsage.rss();
    };
    const before = await ask(200);
    expect((await ask(5000)) - before).toBeLessThan(50e6);
  });

  test('after a crash the jobs are there, and those that ran wait again', async () => {
    const folder = temporaryFolder();
    const before = await open(folder);
    const { id } = await put(before);
    await before.claim(TAKES_ANY);
    await before.close();
    const after = await store(folder);
    expect((await after.recover(() => 0)).map((job) => job.id)).toEqual([id]);
    expect(await after.claim(TAKES_ANY)).toMatchObject({ id, attempts: 2 });
  });
});

describe('the SQLite file', () => {
  test('belongs to one supervisor', () => {
    const folder = temporaryFolder();
    const { store } = openSqliteJobStore(folder);
    onTestFinished(() => store.close());
    expect(() => openSqliteJobStore(folder)).toThrow(expect.objectContaining({ code: 'ALREADY_RUNNING' }));
  });

  test('that is no database, or is damaged inside, is kept aside and an empty one takes its place', async () => {
    for (const damage of ['not a database', 'damaged'] as const) {
      const folder = temporaryFolder();
      const file = join(folder, 'jobs.db');
      if (damage === 'not a database')
        writeFileSync(file, 'this is no database, and longer than a header '.repeat(200));
      else {
        const { store } = openSqliteJobStore(folder);
        for (let i = 0; i < 100; i++) await put(store);
        await store.close();
        const fd = openSync(file, 'r+');
        writeSync(fd, Buffer.alloc(statSync(file).size - 4096, 0xa5), 0, null, 4096);
      }
      const content = readFileSync(file);
      const { store, setAside } = openSqliteJobStore(folder);
      onTestFinished(() => store.close());
      expect(setAside, damage).toMatch(/jobs\.db\.damaged-/);
      // Opening it may have changed its first page, which says how it is written.
      expect(readFileSync(setAside as string).subarray(4096)).toEqual(content.subarray(4096));
      expect(await store.counts()).toEqual({ queued: 0, running: 0 });
    }
  });

  test('of an earlier version is brought up to date, of a later one refused and left alone', async () => {
    const folder = temporaryFolder();
    const old = new Database(join(folder, 'jobs.db'));
    old.exec(`CREATE TABLE jobs (position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, status TEXT NOT NULL,
      request TEXT NOT NULL, step INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,
      cancel_requested INTEGER NOT NULL DEFAULT 0, own_deaths INTEGER NOT NULL DEFAULT 0,
      outside_deaths INTEGER NOT NULL DEFAULT 0, image TEXT, error TEXT, created_at TEXT NOT NULL) STRICT;
      INSERT INTO jobs (id, status, request, created_at) VALUES ('j', 'running', '{"prompt":"x"}', '2026-01-01T00:00:00Z');`);
    old.close();
    const { store, setAside } = openSqliteJobStore(folder);
    expect(setAside).toBeNull();
    expect(await store.recover(() => 0)).toMatchObject([{ id: 'j', status: 'queued', priority: 0 }]);
    await store.close();

    const newer = openDatabase(join(folder, 'jobs.db'));
    newer.exec('PRAGMA user_version = 99');
    await sqliteJobStore(newer).close();
    expect(() => openSqliteJobStore(folder)).toThrow(expect.objectContaining({ code: 'JOB_STORE_UNUSABLE' }));
    expect(existsSync(join(folder, 'jobs.db'))).toBe(true);
  });
});
