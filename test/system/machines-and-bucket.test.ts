/** Several machines whose pictures lie in a bucket: a real PostgreSQL, and a real server that speaks S3. */
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openBucket } from '@qwen-supervisor/supervisor/jobs/bucket-blobs';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BUCKET_KEYS, BucketServer, fetchSeaweed } from '../bucket-server.js';
import { REPOSITORY } from '../fixture-files.js';
import { hasPostgres, privateCluster } from '../supervisor/jobs/postgres-engines.js';
import { installNode } from './other-node.js';
import { type Product, startProduct, until } from './product.js';

const folder = mkdtempSync(join(tmpdir(), 'qwen-supervisor-bucket-'));
const seaweed = await fetchSeaweed(folder);
const node = hasPostgres() && seaweed !== null ? await installNode(24, folder) : null;

describe.skipIf(node === null)('several machines with a bucket', () => {
  const postgres = privateCluster();
  const store = `postgres://postgres@localhost/postgres?host=${postgres.folder()}`;
  const kept = join(folder, 'server');
  mkdirSync(kept);
  const server = new BucketServer(seaweed as string, kept);
  let shared: string;
  let [a, b]: Product[] = [];
  const program = (args: string[], env: Record<string, string> = BUCKET_KEYS) =>
    execa(node as string, [join(REPOSITORY, 'bin/qwen-supervisor.js'), ...args], { reject: false, env });
  const here = () => a as Product;
  const there = () => b as Product;
  const bucket = () => openBucket(shared, BUCKET_KEYS);

  beforeAll(async () => {
    await Promise.all([postgres.start(), server.start()]);
    await server.makeBucket('qwen');
    shared = `${server.address('qwen')}/house`;
    expect(await program(['store', 'migrate', '--store', store, '--shared-folder', shared])).toMatchObject({
      stdout: 'the tables were made or changed',
      stderr: '',
    });
    const start = () =>
      startProduct(['--store', store, '--shared-folder', shared], undefined, BUCKET_KEYS, node as string);
    [a, b] = [await start(), await start()];
    await Promise.all([here().ready(), there().ready()]);
  });
  afterAll(async () => {
    await Promise.all([a?.clean(), b?.clean()]);
    await server.kill();
    rmSync(folder, { recursive: true, force: true });
  });

  test('doctor says that it answers; with another key, or none, what is wrong', async () => {
    const args = ['doctor', '--store', store, '--shared-folder', shared, '--data-dir', join(folder, 'looked')];
    expect((await program(args)).stdout).toMatch(/^pass {2}shared folder .*\/qwen\/house answers$/m);
    const guessed = await program(args, { ...BUCKET_KEYS, AWS_SECRET_ACCESS_KEY: 'guessed' });
    expect(guessed.stdout).toMatch(/^fail {2}shared folder .*SHARED_FOLDER_UNREACHABLE.*403.*\n.*AWS_ACCESS_KEY_ID/m);
    const none = await program(args, { AWS_ACCESS_KEY_ID: '', AWS_SECRET_ACCESS_KEY: '' });
    expect(none.stdout).toMatch(/^fail {2}shared folder .*CONFIG_INVALID.*AWS_SECRET_ACCESS_KEY/m);
  });

  test('each gives the pictures of both, and what is drawn over comes from there; what is removed leaves the bucket', async () => {
    const drawn = await there().ended((await here().submit({ prompt: 'a fox', numInferenceSteps: 4 })).id);
    const image = drawn.images[0] as { id: string; sha256: string };
    for (const product of [here(), there()]) {
      const bytes = await (await product.fetch(`/api/v1/images/${image.id}`)).arrayBuffer();
      expect(createHash('sha256').update(Buffer.from(bytes)).digest('hex')).toBe(image.sha256);
    }
    const over = { prompt: 'a red fox', initImage: image.id, numInferenceSteps: 4, strength: 0.5 };
    const jobs = await Promise.all([here(), there(), here(), there()].map((product) => product.submit(over)));
    for (const { id } of jobs) expect(await here().ended(id)).toMatchObject({ status: 'done', error: null });
    expect(await bucket().list('images', drawn.id)).toHaveLength(1);
    await there().fetch(`/api/v1/jobs/${drawn.id}`, { method: 'DELETE' });
    await until(async () => ((await bucket().list('images', drawn.id)).length === 0 ? true : null));
  });

  test('without the server a finished picture waits, and a machine that dies is followed by another at the step that was copied', async () => {
    const request = { prompt: 'a fox that outlives its machine', numInferenceSteps: 600, seed: 7 };
    const jobs = await Promise.all([1, 2].map(() => here().submit(request)));
    const copied = await until(async () => {
      const names = await bucket().list('checkpoints', '');
      const steps = jobs.map(({ id }) =>
        Math.max(0, ...names.filter((name) => name.startsWith(id)).map((name) => Number(name.split('.')[1]))),
      );
      return steps.every((step) => step > 0) ? steps : null;
    });
    const machines = await Promise.all(jobs.map(async ({ id }) => (await here().job(id)).machine));
    const { machines: all } = await there().status();
    const lost = machines.indexOf(all.find(({ isHere }) => isHere)?.name ?? null);
    there().process.kill('SIGKILL');
    await there().exited;
    await server.kill();
    await until(async () => ((await here().status()).queue.problem?.includes('ECONNREFUSED') ? true : null));
    for (const { id } of jobs) expect((await here().job(id)).status).not.toBe('done');
    await server.start();
    const done = await Promise.all(jobs.map(({ id }) => here().ended(id)));
    expect(done[lost]).toMatchObject({ status: 'done', attempts: 2, startedOverReason: null });
    expect(done[lost]?.resumedAtStep).toBeGreaterThanOrEqual(copied[lost] as number);
    expect(done[lost]?.images[0]?.sha256).toBe(done[1 - lost]?.images[0]?.sha256);
    await until(async () => ((await bucket().list('checkpoints', '')).length === 0 ? true : null));
  });
});
