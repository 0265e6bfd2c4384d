/** The contract of a job store, as far as lists and places in the queue go. */
import type { Job, JobFilter } from '@qwen-supervisor/protocol/job';
import type { JobOutcome } from '@qwen-supervisor/protocol/messages';
import { describe, expect, test } from 'vitest';
import { temporaryFolder } from '../../fixture-files.js';
import { ANY, DONE, engines, MANY, opened, order, put, REQUEST, TAKES_ANY } from './job-store-cases.js';

describe.each(engines())('the queue of the job store on %s', (_engine, open) => {
  const store = () => opened(open);

  test('lists newest first, by status, source and group, a page at a time, and counts', async () => {
    const jobs = await store();
    const ids = [];
    for (let i = 0; i < 4; i++) ids.push((await put(jobs)).id);
    await jobs.claim(TAKES_ANY);
    const list = async (filter: Partial<JobFilter>, limit: number) =>
      (await jobs.list({ ...ANY, ...filter }, null, limit)).jobs.map(({ id }) => id);
    expect(await list({}, 2)).toEqual([ids[3], ids[2]]);
    expect(await list({ status: 'queued' }, 10)).toEqual([ids[3], ids[2], ids[1]]);
    expect(await jobs.counts()).toEqual({ queued: 3, running: 1 });

    const { jobs: together } = await jobs.put([order(), { ...order(), source: 'sdapi' }], null, MANY, MANY);
    const group = together[0]?.group as string;
    expect(new Set([group, ...together.map((job) => job.group)]).size, 'those that came together are a group').toBe(1);
    expect(await list({ group }, 10)).toEqual(together.map(({ id }) => id).reverse());
    expect(await list({ source: 'sdapi' }, 10)).toEqual([together[1]?.id]);

    const pages = [];
    for (let cursor: number | null = null, first = true; first || cursor !== null; first = false) {
      const page: { jobs: Job[]; next: number | null } = await jobs.list(ANY, cursor, 4);
      pages.push(page.jobs.map(({ id }) => id));
      cursor = page.next;
    }
    expect(pages).toEqual([
      [together[1]?.id, together[0]?.id, ids[3], ids[2]],
      [ids[1], ids[0]],
    ]);
  });

  test('a worker takes the first job that is for it; what is too large, or begun elsewhere, is left for others', async () => {
    const jobs = await store();
    const large = (await jobs.put([order(0, { ...REQUEST, width: 256, height: 256 })], null, MANY, MANY)).jobs[0]?.id;
    const begun = (await put(jobs)).id;
    const small = (await put(jobs)).id;
    expect((await jobs.claim({ maxPixels: 128 * 128, leaves: [] }))?.id).toBe(begun);
    await jobs.begin(begun, 1, { step: 0, startedOverReason: null, device: 'cuda:0', model: 'm' });
    await jobs.release(begun, 1, 'none', 3);
    const other = { maxPixels: 128 * 128, leaves: ['cuda:0'] };
    expect((await jobs.claim(other))?.id, 'the one that was begun elsewhere').toBe(small);
    expect(await jobs.claim(other)).toBeNull();
    expect((await jobs.claim({ maxPixels: null, leaves: ['cuda:0'] }))?.id).toBe(large);
    expect(await jobs.claim(TAKES_ANY)).toMatchObject({ id: begun, step: 3 });
  });

  test('a job that was begun elsewhere and has not made a step is for everybody', async () => {
    const jobs = await store();
    const { id } = await put(jobs);
    await jobs.claim(TAKES_ANY);
    await jobs.begin(id, 1, { step: 0, startedOverReason: null, device: 'cuda:0', model: 'm' });
    await jobs.release(id, 1, 'none', 0);
    expect((await jobs.claim({ maxPixels: null, leaves: ['cuda:0'] }))?.id).toBe(id);
  });

  test('a queued job is put before another one, or behind all others of a priority; the others keep their order', async () => {
    const jobs = await store();
    const ids: string[] = [];
    for (const priority of [0, 0, 0, 5]) ids.push((await put(jobs, priority)).id);
    const [a, b, c, urgent] = ids as [string, string, string, string];
    const inTurn = async () => (await jobs.waiting(MANY)).map(({ id }) => id);
    expect(await inTurn()).toEqual([urgent, a, b, c]);
    await jobs.move(c, { before: b });
    expect(await inTurn()).toEqual([urgent, a, c, b]);
    // Again and again into the same gap: there is always room.
    for (let i = 0; i < 70; i++) await jobs.move(i % 2 === 0 ? b : c, { before: i % 2 === 0 ? c : b });
    expect(await inTurn()).toEqual([urgent, a, c, b]);
    expect(await jobs.move(b, { before: urgent })).toMatchObject({ priority: 5 });
    expect(await inTurn()).toEqual([b, urgent, a, c]);
    await jobs.move(b, { priority: 5 });
    expect(await inTurn()).toEqual([urgent, b, a, c]);
    const later = (await put(jobs)).id;
    expect(await inTurn()).toEqual([urgent, b, a, c, later]);
    await jobs.claim(TAKES_ANY);
    expect(await jobs.move(urgent, { priority: 0 }), 'one that runs has no place').toBeNull();
    expect(await jobs.move(a, { before: urgent })).toBeNull();
    expect(await inTurn()).toEqual([b, a, c, later]);
  });

  test('cancels all that wait, or those of a group, and leaves the running one alone', async () => {
    const jobs = await store();
    const alone = await put(jobs);
    const { jobs: together } = await jobs.put([order(), order()], null, MANY, MANY);
    await put(jobs);
    await jobs.claim(TAKES_ANY);
    const cancelled = await jobs.cancelQueued(together[0]?.group as string);
    expect(cancelled.map(({ id, status }) => [id, status])).toEqual(together.map(({ id }) => [id, 'cancelled']));
    expect(await jobs.cancelQueued(null)).toHaveLength(1);
    expect(await jobs.get(alone.id)).toMatchObject({ status: 'running' });
  });

  test('knows the pictures that are drawn over', async () => {
    const jobs = await store();
    const { jobs: over } = await jobs.put(
      [order(0, { ...REQUEST, initImage: 'abc', strength: 0.5 })],
      null,
      MANY,
      MANY,
    );
    await put(jobs);
    await jobs.claim(TAKES_ANY);
    expect(over[0]).toMatchObject({ initImage: 'abc', strength: 0.5, steps: 10 });
    await jobs.finish(over[0]?.id as string, 1, 10, DONE);
    expect(await jobs.inputs()).toEqual(new Set(['abc']));
    await jobs.remove([over[0]?.id as string]);
    expect(await jobs.inputs()).toEqual(new Set());
  });

  test('after a look for what is too much the store can be closed, and opened again', async () => {
    const folder = temporaryFolder();
    const first = await open(folder);
    for (let i = 0; i < 14; i++) {
      await put(first);
      const job = (await first.claim(TAKES_ANY)) as Job;
      await first.finish(job.id, 1, 20, { ...(DONE as object), imageId: job.id } as JobOutcome);
    }
    expect(await first.expired({ finishedBefore: null, trashedBefore: null, keepBytes: 1e9 })).toEqual([]);
    expect(await first.expired({ finishedBefore: null, trashedBefore: null, keepBytes: 36 })).toHaveLength(2);
    await first.close();
    const again = await opened(open, folder);
    expect((await again.list(ANY, null, 20)).jobs).toHaveLength(14);
  });

  test('a page of long prompts has fewer jobs, and the pages have all of them', async () => {
    const jobs = await opened(open);
    const long = { ...REQUEST, prompt: 'x'.repeat(20_000), negativePrompt: 'y'.repeat(20_000) };
    const { jobs: put } = await jobs.put(
      Array.from({ length: 100 }, () => order(0, long)),
      null,
      MANY,
      MANY,
    );
    const ids: string[] = [];
    let cursor: number | null = null;
    do {
      const page: { jobs: { id: string }[]; next: number | null } = await jobs.list(ANY, cursor, 100);
      expect(JSON.stringify(page.jobs).length).toBeLessThan(1.2 * 2 ** 20);
      ids.push(...page.jobs.map(({ id }) => id));
      cursor = page.next;
    } while (cursor !== null);
    expect(ids).toEqual(put.map(({ id }) => id).toReversed());
  });
});
