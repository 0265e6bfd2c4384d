/** A job store that several supervisors share: who may end a job, and who hears of what the others do. */
import type { Job } from '@qwen-supervisor/protocol/job';
import type { MachineReport, MachineStatus } from '@qwen-supervisor/protocol/status';
import { type JobStore, listAll } from '@qwen-supervisor/supervisor/jobs/job-store';
import { usable } from '@qwen-supervisor/supervisor/jobs/open-postgres';
import type { ClaimHooks } from '@qwen-supervisor/supervisor/jobs/postgres-claims';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { until } from '../../system/product.js';
import { ANY, DONE, FAILED, MANY, order, put, TAKES_ANY } from './job-store-cases.js';
import { DEAF, hasPostgres, privateCluster } from './postgres-engines.js';

const SEEDS = Array.from({ length: process.env.FULL === '1' ? 1000 : 20 }, (_, i) => 20_261_128 + i);

/** Of the queue: by priority, then in the order of arrival, however often it was begun and given back. */
async function firstOf(store: JobStore, accepted: string[]): Promise<string | null> {
  const queued = await listAll(store, { ...ANY, status: 'queued' });
  queued.sort((a, b) => b.priority - a.priority || accepted.indexOf(a.id) - accepted.indexOf(b.id));
  return queued[0]?.id ?? null;
}

describe.skipIf(!hasPostgres())('a shared job store', () => {
  const postgres = privateCluster();
  let cases = 0;
  const fresh = () => `case ${cases++}`;
  const opened = async (name: string, host: string, hooks: ClaimHooks = DEAF): Promise<JobStore> => {
    const store = await postgres.open(name, host, hooks);
    onTestFinished(() => store.close());
    return store;
  };
  const listener = () => ({
    report: vi.fn((): MachineReport | null => null),
    onMachines: vi.fn(),
    onProgress: vi.fn(),
    onPictures: vi.fn(),
    onWork: vi.fn(),
    onJobs: vi.fn(),
    onMissed: vi.fn(),
    onCancel: vi.fn(),
    onLost: vi.fn(),
    onAway: vi.fn(),
  });
  const heard = (spy: ReturnType<typeof vi.fn>, ...args: unknown[]) =>
    until(async () => (spy.mock.calls.some((call) => JSON.stringify(call) === JSON.stringify(args)) ? true : null));

  test('gives each job to one supervisor, however many ask at the same time', async () => {
    const name = fresh();
    const stores = [await opened(name, 'a'), await opened(name, 'b'), await opened(name, 'c')];
    const { jobs } = await (stores[0] as JobStore).put(
      Array.from({ length: 30 }, () => order()),
      null,
      MANY,
      MANY,
    );
    const claims = await Promise.all(
      stores.flatMap((store) => Array.from({ length: 12 }, () => store.claim(TAKES_ANY))),
    );
    const claimed = claims.flatMap((job) => job?.id ?? []);
    expect(claimed.toSorted()).toEqual(jobs.map(({ id }) => id).toSorted());
  });

  test('a key that is sent to several supervisors at the same time makes one job', async () => {
    const name = fresh();
    const stores = [await opened(name, 'a'), await opened(name, 'b')];
    const key = { key: 'k', fingerprint: 'f' };
    const asks = Array.from({ length: 20 }, (_, i) => (stores[i % 2] as JobStore).put([order()], key, MANY, MANY));
    const ids = (await Promise.all(asks)).flatMap(({ jobs }) => jobs.map(({ id }) => id));
    expect(new Set(ids).size).toBe(1);
    expect(await (stores[0] as JobStore).counts()).toEqual({ queued: 1, running: 0 });
  });

  const reporting = (state: 'ready' | 'busy' = 'ready'): MachineReport => ({
    version: '1.0.0',
    url: 'http://127.0.0.1:8000',
    model: 'pocket',
    workers: [{ name: 'inference', state, device: 'cuda:0', job: null, reason: state }],
  });
  /** What this one knows of all, when it is so. */
  const known = ({ onMachines }: ReturnType<typeof listener>, isSo: (machines: MachineStatus[]) => boolean) =>
    until(async () => {
      const machines: MachineStatus[] = onMachines.mock.calls.at(-1)?.[0] ?? [];
      return isSo(machines) ? machines : null;
    }, 20_000);

  test('every supervisor knows all machines: how they are, which one is silent, and which has stopped', async () => {
    const name = fresh();
    const [ofA, ofB, ofC] = [listener(), listener(), listener()];
    for (const one of [ofA, ofB, ofC]) one.report.mockReturnValue(reporting());
    await opened(name, 'box 1111', ofA);
    // Two machines of one host name.
    await opened(name, 'box 2222', ofB);
    const c = await postgres.open(name, 'cellar 3333', ofC);
    const all = await known(ofA, (machines) => machines.length === 3);
    expect(all.map((machine) => machine.name)).toEqual(['box', expect.stringMatching(/^box-(1111|2222)$/), 'cellar']);
    expect(all.filter(({ isHere }) => isHere)).toHaveLength(1);
    expect(all[0]).toMatchObject({ state: 'up', isDrained: false, version: '1.0.0', workers: [{ state: 'ready' }] });
    ofB.report.mockReturnValue(reporting('busy'));
    await known(ofA, (machines) => machines.some(({ workers }) => workers[0]?.state === 'busy'));
    await c.close();
    const stopped = await known(ofA, (machines) => machines.some(({ state }) => state === 'stopped'));
    expect(stopped.find(({ state }) => state === 'stopped')?.name).toBe('cellar');
    // From now on it says nothing.
    ofB.report.mockReturnValue(null);
    const silent = await known(ofA, (machines) => machines.some(({ state }) => state === 'silent'));
    expect(silent.filter(({ state }) => state === 'silent')).toMatchObject([
      { isHere: false, workers: [{ state: 'busy' }] },
    ]);
  });

  test.each(['no JSON', 'null', '{"version":2,"workers":[{"state":"sublimating"}]}'])(
    'a machine that tells of itself what is not understood (%s) is known all the same, and so are the others',
    async (report) => {
      const name = fresh();
      const [ofA, ofB] = [listener(), listener()];
      for (const one of [ofA, ofB]) one.report.mockReturnValue(reporting());
      await opened(name, 'a', ofA);
      await opened(name, 'b', ofB);
      await known(ofA, (machines) => machines.length === 2);
      ofB.report.mockReturnValue(null);
      const { alone, schema, boss } = await postgres.database(name);
      onTestFinished(() => boss.stop({ graceful: false }));
      const isOdd = ({ name, workers }: MachineStatus) => name === 'b' && workers.length === 0;
      const all = await until(async () => {
        await alone.all(`UPDATE ${schema}.machines SET report = $1 WHERE name = 'b'`, report);
        const machines: MachineStatus[] = ofA.onMachines.mock.calls.at(-1)?.[0] ?? [];
        return machines.some(isOdd) ? machines : null;
      });
      expect(all.map(({ version, model }) => [version, model])).toEqual([
        ['1.0.0', 'pocket'],
        ['?', '?'],
      ]);
      expect(ofA.onAway).not.toHaveBeenCalled();
    },
  );

  test('a machine that is drained takes no more jobs, over its own new start, until it is told otherwise', async () => {
    const name = fresh();
    const [ofA, ofB] = [listener(), listener()];
    for (const one of [ofA, ofB]) one.report.mockReturnValue(reporting());
    const a = await opened(name, 'a', ofA);
    const b = await postgres.open(name, 'b', ofB);
    await known(ofA, (machines) => machines.length === 2);
    const job = await put(a);
    expect(await a.machines?.drain('b', true)).toBe(true);
    expect(await a.machines?.drain('nobody', true)).toBe(false);
    expect(await b.claim(TAKES_ANY)).toBeNull();
    await b.close();
    const again = await opened(name, 'b', ofB);
    expect(await again.claim(TAKES_ANY)).toBeNull();
    await known(ofB, (machines) => machines.some((machine) => machine.name === 'b' && machine.isDrained));
    ofB.onWork.mockClear();
    await a.machines?.drain('b', false);
    await heard(ofB.onWork);
    expect(await again.claim(TAKES_ANY)).toMatchObject({ id: job.id });
    await again.begin(job.id, 1, { step: 0, startedOverReason: null, device: 'cpu', model: 'pocket' });
    expect(await a.get(job.id)).toMatchObject({ machine: 'b', devices: ['cpu'] });
  });

  test('how far a job is, and what becomes of pictures, the others hear', async () => {
    const name = fresh();
    const [ofA, ofB] = [listener(), listener()];
    const [a, b] = [await opened(name, 'a', ofA), await opened(name, 'b', ofB)];
    const { id } = await put(a);
    await a.claim(TAKES_ANY);
    // More than a notice may have.
    const preview = new Uint8Array(100_000);
    const step = { type: 'step' as const, jobId: id, step: 3, steps: 20, preview, eta: { low: 1, high: 2 } };
    await a.machines?.tell(step, true);
    await heard(ofB.onProgress, { ...step, preview: null }, true);
    expect(ofA.onProgress, 'what it has told it knows').not.toHaveBeenCalled();
    await a.finish(id, 1, 20, DONE);
    await b.mark([id], { starred: true, trashed: null });
    await heard(ofA.onPictures, [id], 'starred', []);
    await b.remove([id]);
    await heard(ofA.onPictures, [id], 'removed', ['images/i1.png']);
  });

  test('what one supervisor does, those hear whom it concerns', async () => {
    const name = fresh();
    const [ofA, ofB] = [listener(), listener()];
    const [a, b] = [await opened(name, 'a', ofA), await opened(name, 'b', ofB)];
    ofB.onWork.mockClear();
    const { id } = await put(a);
    await heard(ofB.onWork);
    await heard(ofB.onJobs, [id], 'queued');
    await a.claim(TAKES_ANY);
    expect(await b.cancel(id, true)).toMatchObject({ status: 'running' });
    await heard(ofA.onCancel, id, true);
    expect(await a.finish(id, 1, 3, { status: 'cancelled' })).toMatchObject({ status: 'cancelled' });
    await heard(ofB.onJobs, [id], 'ended');
    expect(ofA.onJobs, 'of what it does itself it knows').not.toHaveBeenCalled();
    expect(ofA.onLost).not.toHaveBeenCalled();
  });

  test('a cancel whose notice was missed is heard with the next sign of life', async () => {
    const name = fresh();
    const ofA = listener();
    const a = await opened(name, 'a', ofA);
    const { id } = await put(a);
    await a.claim(TAKES_ANY);
    const { alone, schema, boss } = await postgres.database(name);
    onTestFinished(() => boss.stop({ graceful: false }));
    await alone.all(`UPDATE ${schema}.jobs SET cancel_requested = 1 WHERE id = $1`, id);
    await heard(ofA.onCancel, id, false);
  });

  test('a supervisor that is silent loses its job to another, hears so, and ends nothing any more', async () => {
    const name = fresh();
    const [ofA, ofB] = [listener(), listener()];
    const [a, b] = [await opened(name, 'a', ofA), await opened(name, 'b', ofB)];
    const { id } = await put(a);
    await a.claim(TAKES_ANY);
    // As if nothing had been heard of it for a minute.
    const { alone, schema, boss } = await postgres.database(name);
    onTestFinished(() => boss.stop({ graceful: false }));
    const silence = `UPDATE ${schema}_queue.job SET heartbeat_on = now() - interval '1 minute'`;
    const taken = await until(async () => {
      await alone.all(silence);
      return b.claim(TAKES_ANY);
    });
    expect(taken).toMatchObject({ id, attempts: 2 });
    // Whichever of them has looked after it.
    for (const one of [ofA, ofB]) await heard(one.onJobs, [id], 'requeued');
    await heard(ofA.onLost, id);
    expect(await a.finish(id, 1, 20, DONE)).toBeNull();
    expect(await a.release(id, 1, 'own', 0)).toBeNull();
    expect(await b.finish(id, 2, 20, DONE)).toMatchObject({ status: 'done', attempts: 2 });
    expect(ofB.onLost).not.toHaveBeenCalled();
  });

  test.each(['active', 'completed'])(
    "a job whose entry is another time's (%s), as where only our tables were brought back, is drawn all the same",
    async (state) => {
      const name = fresh();
      const store = await opened(name, 'a');
      const { id } = await put(store);
      const { alone, schema, boss } = await postgres.database(name);
      onTestFinished(() => boss.stop({ graceful: false }));
      await alone.all(`UPDATE ${schema}_queue.job SET state = '${state}'`);
      const claimed = await until(() => store.claim(TAKES_ANY));
      expect(claimed).toMatchObject({ id, attempts: 1 });
      expect(await store.finish(id, 1, 20, DONE)).toMatchObject({ status: 'done' });
      expect(await alone.all(`SELECT FROM ${schema}_queue.job WHERE state < 'completed'`)).toEqual([]);
    },
  );

  test('an end whose answer was lost is told once, and is not written twice', async () => {
    const name = fresh();
    const database = await postgres.database(name);
    const db = database.boss.getDb();
    const begin = db.beginTransaction?.bind(db);
    let isCut = false;
    db.beginTransaction = async () => {
      const begun = await (begin as NonNullable<typeof begin>)();
      if (!isCut) return begun;
      isCut = false;
      return { ...begun, commit: () => begun.commit().then(() => Promise.reject(new Error('Connection terminated'))) };
    };
    const store = await usable(database, 'a', DEAF);
    onTestFinished(() => store.close());
    const { id } = await put(store);
    await store.claim(TAKES_ANY);
    isCut = true;
    const error = await store.finish(id, 1, 20, DONE).catch((error: unknown) => error);
    expect(store.whenAway(error)).toBe('STORE_UNREACHABLE');
    expect(await store.finish(id, 1, 20, DONE)).toMatchObject({ id, status: 'done' });
    expect(await store.finish(id, 1, 20, FAILED)).toBeNull();
  });

  test('a database that restarts loses nothing, and nobody has to be told anew', async () => {
    const name = fresh();
    const ofB = listener();
    const [a, b] = [await opened(name, 'a'), await opened(name, 'b', ofB)];
    const { id } = await put(a);
    const other = await put(a);
    await a.claim(TAKES_ANY);
    await postgres.control('stop', '-m', 'immediate');
    const error = await a.put([order()], null, MANY, MANY).catch((error: unknown) => error);
    expect(a.whenAway(error)).toBe('STORE_UNREACHABLE');
    await postgres.control('start');
    const again = <T>(ask: () => Promise<T>) => until(() => ask().catch(() => null));
    expect(await again(() => a.finish(id, 1, 20, DONE))).toMatchObject({ status: 'done' });
    expect(await again(() => b.claim(TAKES_ANY))).toMatchObject({ id: other.id, attempts: 1 });
    await until(async () => {
      ofB.onWork.mockClear();
      await put(a);
      await new Promise((resolve) => setTimeout(resolve, 200));
      return ofB.onWork.mock.calls.length > 0 ? true : null;
    });
  });

  test('of another version it is refused, and not changed', async () => {
    const name = fresh();
    const database = await postgres.database(name);
    const { alone, schema } = database;
    onTestFinished(() => database.boss.stop({ graceful: false }));
    await alone.all(`UPDATE ${schema}.version SET version = 99`);
    await expect(usable(database, 'a', DEAF)).rejects.toMatchObject({ code: 'STORE_SCHEMA_NEWER' });
    await alone.all(`UPDATE ${schema}.version SET version = 0`);
    await expect(usable(database, 'a', DEAF)).rejects.toMatchObject({ code: 'STORE_SCHEMA_OLD' });
  });

  test.each(SEEDS)(
    'whatever three supervisors do in whatever order, two of them one that was frozen and started anew, no job is lost or ends twice, and each claim takes the first (%i)',
    async (first) => {
      const name = fresh();
      const stores = [await opened(name, 'a'), await opened(name, 'a'), await opened(name, 'b')] as const;
      let seed = first;
      const random = (below: number) => {
        seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
        return Math.floor((seed / 2 ** 31) * below);
      };
      const accepted: string[] = [];
      const held: { by: number; job: Job }[] = [];
      const ends = new Map<string, number>();
      const end = (job: Job | null) => {
        if (job && ['done', 'failed', 'cancelled'].includes(job.status)) ends.set(job.id, (ends.get(job.id) ?? 0) + 1);
      };
      const acts = [
        async (by: number) => void accepted.push((await put(stores[by] as JobStore, random(3))).id),
        async (by: number) => {
          const next = await firstOf(stores[by] as JobStore, accepted);
          const job = await (stores[by] as JobStore).claim(TAKES_ANY);
          expect(job?.id ?? null).toBe(next);
          if (job) held.push({ by, job });
        },
        async () => {
          const [run] = held.splice(random(held.length), 1);
          if (run)
            end(
              await (stores[run.by] as JobStore).finish(run.job.id, run.job.attempts, 20, {
                ...DONE,
                imageId: run.job.id,
              } as never),
            );
        },
        async () => {
          const [run] = held.splice(random(held.length), 1);
          if (run) end(await (stores[run.by] as JobStore).release(run.job.id, run.job.attempts, 'none', random(20)));
        },
        async (by: number) => {
          const before = await (stores[by] as JobStore).get(accepted[random(accepted.length)] ?? '');
          if (before?.status === 'queued') end(await (stores[by] as JobStore).cancel(before.id));
        },
        // The one that was frozen goes on with what it held.
        async () => (await stores[1].recover(() => 0)).forEach(end),
      ];
      for (let i = 0; i < 300; i++) await acts[random(acts.length)]?.(random(3));
      for (const store of stores) (await store.recover(() => 0)).forEach(end);
      for (let job = await stores[2].claim(TAKES_ANY); job; job = await stores[2].claim(TAKES_ANY))
        end(await stores[2].finish(job.id, job.attempts, 20, { ...DONE, imageId: job.id } as never));
      expect(await stores[0].counts()).toEqual({ queued: 0, running: 0 });
      for (const id of accepted) {
        expect((await stores[0].get(id))?.status).toMatch(/done|failed|cancelled/);
        expect(ends.get(id) ?? 0, `${id} ends once`).toBe(1);
      }
    },
  );
});
