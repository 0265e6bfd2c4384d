/** Which pictures go, and which stay: with the real store of one machine, whose clock may be wrong. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Gallery, type Keep } from '@qwen-supervisor/supervisor/jobs/gallery';
import { OrderedWrites } from '@qwen-supervisor/supervisor/jobs/ordered-writes';
import { openSqliteJobStore } from '@qwen-supervisor/supervisor/jobs/sqlite-database';
import type { EventLog } from '@qwen-supervisor/supervisor/records/event-log';
import { pino } from 'pino';
import { expect, onTestFinished, test, vi } from 'vitest';
import { temporaryFolder } from '../../fixture-files.js';
import { DONE, put, TAKES_ANY } from './job-store-cases.js';

const DAY_MS = 86_400_000;

async function galleryOf(count: number, keep: Keep, clock: { aheadMs: number }) {
  const dataDir = temporaryFolder();
  mkdirSync(join(dataDir, 'inputs'));
  const { store } = openSqliteJobStore(dataDir);
  onTestFinished(() => store.close());
  const log = pino({ level: 'silent' });
  const writes = new OrderedWrites('the job database', log, {
    whenAway: () => null,
    onWritten() {},
    onFailure: (error) => expect.unreachable(error.message),
  });
  const told: string[] = [];
  const events = {
    publish: ({ change, ids }: { change: string; ids: string[] }) => told.push(`${change} ${ids.length}`),
  };
  for (let n = 0; n < count; n++) {
    const { id } = await put(store);
    await store.claim(TAKES_ANY);
    await store.finish(id, 1, 20, { ...DONE, imageId: id, file: `images/${id}.png` } as typeof DONE);
    await store.mark([id], { starred: null, trashed: true });
  }
  const nowMs = async () => Date.now() + clock.aheadMs;
  const parts = {
    dataDir,
    store: { ...store, nowMs },
    shared: null,
    log,
    events: events as unknown as EventLog,
    writes,
  };
  const left = async () => (await store.list({ status: null, source: null, group: null, ids: null }, null, 1000)).jobs;
  return { gallery: new Gallery(parts, () => keep), writes, left, told };
}

test('what is thrown away goes by the clock of the store: a machine that is years ahead removes nothing', async () => {
  const clock = { aheadMs: 0 };
  const { gallery, writes, left } = await galleryOf(1, { keepDays: 30, keepTrashDays: 30, keepBytes: null }, clock);
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 1000 * DAY_MS });
  onTestFinished(() => void vi.useRealTimers());
  clock.aheadMs = -1000 * DAY_MS;
  gallery.expire();
  await writes.add(async () => {});
  expect(await left()).toHaveLength(1);
  clock.aheadMs += 31 * DAY_MS;
  gallery.expire();
  await writes.add(async () => {});
  expect(await left()).toEqual([]);
});

test('very many are removed in parts, between which others have their turn', async () => {
  const { gallery, left, told } = await galleryOf(
    510,
    { keepDays: null, keepTrashDays: null, keepBytes: null },
    { aheadMs: 0 },
  );
  expect(await gallery.emptyTrash()).toBe(510);
  expect(await left()).toEqual([]);
  expect(told).toEqual(['removed 500', 'removed 10']);
});
