/** What a store knows of finished pictures; a second engine runs the same cases. */
import type { Job, PictureFilter } from '@qwen-supervisor/protocol/job';
import type { JobOutcome } from '@qwen-supervisor/protocol/messages';
import type { JobStore } from '@qwen-supervisor/supervisor/jobs/job-store';
import { describe, expect, test } from 'vitest';
import { temporaryFolder } from '../../fixture-files.js';
import { DONE, engines, MANY, opened, order, put, REQUEST, TAKES_ANY } from './job-store-cases.js';

const ALL: PictureFilter = { search: null, starred: null, trashed: false, model: null, width: null, height: null };
const KEEP = { finishedBefore: null, trashedBefore: null, keepBytes: null };
const LATER = '2999-01-01T00:00:00.000Z';

describe.each(engines())('the pictures of a store on %s', (_engine, open) => {
  /** Draws one, and gives its id. */
  async function draw(store: JobStore, prompt = 'a fox', model = 'pocket', width = 128): Promise<string> {
    await store.put([order(0, { ...REQUEST, prompt, width })], null, MANY, MANY);
    const { id, attempts } = (await store.claim(TAKES_ANY)) as Job;
    await store.begin(id, attempts, { step: 0, startedOverReason: null, device: 'cpu', model });
    await store.finish(id, attempts, 20, { ...DONE, imageId: id, file: `images/${id}.png` } as JobOutcome);
    return id;
  }
  const ids = async (store: JobStore, filter: Partial<PictureFilter> = {}) =>
    (await store.pictures({ ...ALL, ...filter }, null, 100)).pictures.map(([id]) => id);

  test('are listed newest first, a page at a time, and only those that are done', async () => {
    const store = await opened(open);
    const drawn = [await draw(store), await draw(store), await draw(store)];
    await put(store);
    const first = await store.pictures(ALL, null, 2);
    expect(first.pictures).toEqual([
      [drawn[2], 128, 128, expect.any(Number), 0],
      [drawn[1], 128, 128, expect.any(Number), 0],
    ]);
    expect(await store.pictures(ALL, first.next, 2)).toEqual({
      pictures: [[drawn[0], 128, 128, expect.any(Number), 0]],
      next: null,
    });
  });

  test('remember the model that drew them, whatever is loaded later', async () => {
    const store = await opened(open);
    const [a, b] = [await draw(store, 'a fox', 'pocket'), await draw(store, 'a fox', 'qwen-image')];
    expect([(await store.get(a))?.model, (await store.get(b))?.model]).toEqual(['pocket', 'qwen-image']);
    expect(await ids(store, { model: 'qwen-image' })).toEqual([b]);
    expect(await store.facets()).toEqual({
      models: expect.arrayContaining([
        { model: 'pocket', count: 1 },
        { model: 'qwen-image', count: 1 },
      ]),
      sizes: [{ width: 128, height: 128, count: 2 }],
    });
  });

  test('are found by words of their prompt in any order, and what means something to a database is only text', async () => {
    const store = await opened(open);
    const teal = await draw(store, 'A fox on a teal background');
    const half = await draw(store, '50% off_sale, "red" fox');
    const han = await draw(store, '一只狐狸');
    expect(await ids(store, { search: 'TEAL fox' })).toEqual([teal]);
    expect(await ids(store, { search: 'fox' })).toEqual([half, teal]);
    expect(await ids(store, { search: '50%' })).toEqual([half]);
    expect(await ids(store, { search: 'off_sale' })).toEqual([half]);
    expect(await ids(store, { search: 'o__sale' })).toEqual([]);
    expect(await ids(store, { search: "x' OR 1=1 --" })).toEqual([]);
    expect(await ids(store, { search: '狐狸' })).toEqual([han]);
    expect(await ids(store, { search: '  ' })).toHaveLength(3);
  });

  test('are filtered by size', async () => {
    const store = await opened(open);
    await draw(store);
    const wide = await draw(store, 'a fox', 'pocket', 256);
    expect(await ids(store, { width: 256, height: 128 })).toEqual([wide]);
  });

  test('stars stay over a restart, and tell what has changed', async () => {
    const folder = temporaryFolder();
    const store = await open(folder);
    const [a, b] = [await draw(store), await draw(store)];
    expect(await store.mark([a, 'nope'], { starred: true, trashed: null })).toEqual([a]);
    expect(await store.mark([a, b], { starred: true, trashed: null })).toEqual([b]);
    expect(await store.mark([b], { starred: false, trashed: null })).toEqual([b]);
    await store.close();
    const again = await opened(open, folder);
    expect(await ids(again, { starred: true })).toEqual([a]);
    expect(await ids(again, { starred: false })).toEqual([b]);
    expect(await again.get(a)).toMatchObject({ starred: true, trashedAt: null });
  });

  test('in the trash are out of sight, come back as they were, and go when their time is over', async () => {
    const store = await opened(open);
    const [a, b] = [await draw(store), await draw(store)];
    expect(await store.mark([a], { starred: null, trashed: true })).toEqual([a]);
    expect(await store.mark([a], { starred: null, trashed: true })).toEqual([]);
    expect([await ids(store), await ids(store, { trashed: true })]).toEqual([[b], [a]]);
    expect((await store.get(a))?.trashedAt).toMatch(/^\d{4}-/);
    expect(await store.mark([a], { starred: null, trashed: false })).toEqual([a]);
    expect(await ids(store)).toEqual([b, a]);
    await store.mark([b], { starred: null, trashed: true });
    expect(await store.expired({ ...KEEP, trashedBefore: '2000-01-01T00:00:00.000Z' })).toEqual([]);
    expect(await store.expired({ ...KEEP, trashedBefore: LATER })).toEqual([{ id: b, file: `images/${b}.png` }]);
  });

  test('with a star are removed by no limit', async () => {
    const store = await opened(open);
    const drawn = [];
    for (let i = 0; i < 12; i++) drawn.push(await draw(store));
    await store.mark([drawn[0] as string], { starred: true, trashed: null });
    const old = await store.expired({ ...KEEP, finishedBefore: LATER });
    expect(old.map(({ id }) => id).toSorted()).toEqual(drawn.slice(1).toSorted());
    const large = await store.expired({ ...KEEP, keepBytes: 0 });
    expect(large.map(({ id }) => id)).toEqual(drawn.slice(1, 2));
  });

  test('with a star do not push the others out, and those that go with the trash make room', async () => {
    const store = await opened(open);
    const drawn: string[] = [];
    for (let i = 0; i < 24; i++) drawn.push(await draw(store));
    await store.mark(drawn.slice(0, 12), { starred: true, trashed: null });
    const large = await store.expired({ ...KEEP, keepBytes: 1 });
    expect(
      large.map(({ id }) => id),
      'the ten newest without a star stay',
    ).toEqual(drawn.slice(12, 14));
    await store.mark(drawn.slice(20, 22), { starred: null, trashed: true });
    // Each has three bytes.
    const gone = await store.expired({ ...KEEP, trashedBefore: LATER, keepBytes: 22 * 3 });
    expect(gone.map(({ id }) => id).toSorted()).toEqual(drawn.slice(20, 22).toSorted());
  });
});
