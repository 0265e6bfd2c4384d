/** What every store of blobs does: a folder that all have mounted, and a bucket on a real server. */
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Blobs } from '@qwen-supervisor/supervisor/jobs/blobs';
import { openBucket } from '@qwen-supervisor/supervisor/jobs/bucket-blobs';
import { FolderBlobs } from '@qwen-supervisor/supervisor/jobs/folder-blobs';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { BUCKET_KEYS, BucketServer, fetchSeaweed } from '../../bucket-server.js';
import { until } from '../../system/product.js';

const folder = mkdtempSync(join(tmpdir(), 'qwen-supervisor-blobs-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const seaweed = await fetchSeaweed(folder);
const FOLDERS = ['images', 'inputs'];

function behavesAsOne(open: () => Blobs): void {
  test('what was put under a key is what is there, the last of it, and nothing of another', async () => {
    const blobs = open();
    await blobs.put('images/job_a.1.png', Buffer.from('first'));
    await blobs.put('images/job_a.1.png', Buffer.from([0, 255, 13, 10]));
    expect([...((await blobs.get('images/job_a.1.png')) as Buffer)]).toEqual([0, 255, 13, 10]);
    expect(await blobs.has('images/job_a.1.png')).toBe(true);
    expect([await blobs.get('images/job_a.2.png'), await blobs.has('inputs/job_a.1.png')]).toEqual([null, false]);
  });

  test('a folder lists those that begin so, however many others there are', async () => {
    const blobs = open();
    const names = Array.from({ length: 1100 }, (_, i) => `job_${i}.x.png`);
    for (let i = 0; i < names.length; i += 50)
      await Promise.all(names.slice(i, i + 50).map((name) => blobs.put(`inputs/${name}`, Buffer.from('x'))));
    expect((await blobs.list('inputs', '')).length).toBe(1100);
    expect((await blobs.list('inputs', 'job_109')).toSorted()).toEqual(
      names.filter((name) => name.startsWith('job_109')).toSorted(),
    );
    await blobs.remove(names.map((name) => `inputs/${name}`));
    expect(await blobs.list('inputs', '')).toEqual([]);
    expect((await blobs.ages('inputs', ['gone'])).size).toBe(0);
  });

  test('what is removed is gone, what was gone is no error, and the rest stays', async () => {
    const blobs = open();
    await blobs.put('images/stays', Buffer.from('1'));
    await blobs.put('images/goes', Buffer.from('1'));
    await blobs.remove(['images/goes', 'images/was never there']);
    expect([await blobs.has('images/stays'), await blobs.has('images/goes')]).toEqual([true, false]);
  });

  test('what was just written is young by the clock of the store', async () => {
    const blobs = open();
    await blobs.put('inputs/young', Buffer.from('1'));
    const age = (await blobs.ages('inputs', ['young', 'gone'])).get('young') as number;
    // Its clock may count in seconds.
    expect(age).toBeGreaterThan(-2000);
    expect(age).toBeLessThan(120_000);
    await blobs.remove(['inputs/young']);
  });
}

describe('a folder', () => {
  const root = join(folder, 'mounted');
  beforeAll(async () => {
    mkdirSync(root);
    await new FolderBlobs(root).make(FOLDERS);
  });
  behavesAsOne(() => new FolderBlobs(root));

  test('one that is not mounted is told, and nothing is written to the disk below', async () => {
    const below = join(folder, 'below');
    mkdirSync(below);
    const blobs = new FolderBlobs(below);
    await expect(blobs.requireThere(FOLDERS)).rejects.toMatchObject({ code: 'SHARED_FOLDER_UNREACHABLE' });
    await expect(blobs.put('images/x', Buffer.from('1'))).rejects.toMatchObject({ code: 'SHARED_FOLDER_UNREACHABLE' });
  });
});

test('a bucket that gives the same page of a list again and again is told as such', async () => {
  const page = `<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>more</NextContinuationToken>
    <Contents><Key>images/a</Key><LastModified>2026-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>`;
  const server = createServer((_, response) => response.end(page)).listen(0, '127.0.0.1');
  onTestFinished(() => void server.close());
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await expect(openBucket(`http://127.0.0.1:${port}/qwen`, BUCKET_KEYS).list('images', '')).rejects.toMatchObject({
    code: 'SHARED_FOLDER_UNREACHABLE',
    message: expect.stringContaining('the same page'),
  });
});

describe.skipIf(seaweed === null)('a bucket', () => {
  const server = new BucketServer(seaweed as string, folder);
  beforeAll(async () => {
    await server.start();
    await server.makeBucket('qwen');
  });
  afterAll(() => server.kill());
  const open = () => openBucket(`${server.address('qwen')}/my%20house/one`, BUCKET_KEYS);
  behavesAsOne(open);

  test('two prefixes of one bucket see nothing of each other', async () => {
    const other = openBucket(`${server.address('qwen')}/my house/o`, BUCKET_KEYS);
    expect(await openBucket(server.address('qwen'), BUCKET_KEYS).list('my house/one/images', '')).not.toEqual([]);
    await open().put('images/mine', Buffer.from('1'));
    expect([await other.has('images/mine'), await other.list('images', '')]).toEqual([false, []]);
    await expect(other.requireThere()).resolves.toBeUndefined();
  });

  test.each([
    ['another key', { ...BUCKET_KEYS, AWS_SECRET_ACCESS_KEY: 'guessed' }, 'qwen', /403/],
    ['no such bucket', BUCKET_KEYS, 'nobodys', /no such bucket/],
  ])('%s is told as such', async (_what, keys, bucket, says) => {
    const blobs = openBucket(server.address(bucket), keys);
    await expect(blobs.requireThere()).rejects.toMatchObject({
      code: 'SHARED_FOLDER_UNREACHABLE',
      message: expect.stringMatching(says),
    });
  });

  test('without a key in the environment it is not even tried', () => {
    expect(() => openBucket(server.address('qwen'), {})).toThrow(/AWS_SECRET_ACCESS_KEY have to be in the environment/);
  });

  test('a server that stands still or is gone is an error with a code, and back again it has what it had', async () => {
    const blobs = open();
    await blobs.put('images/kept', Buffer.from('kept'));
    server.signal('SIGSTOP');
    // On another processor it may still answer one.
    const refused = await until(() =>
      blobs.has('images/kept').then(
        () => null,
        (error: Error) => error,
      ),
    );
    expect(refused).toMatchObject({ code: 'SHARED_FOLDER_UNREACHABLE' });
    server.signal('SIGCONT');
    await server.kill();
    await expect(blobs.has('images/kept')).rejects.toMatchObject({ message: expect.stringContaining('ECONNREFUSED') });
    await server.start();
    expect(String(await blobs.get('images/kept'))).toBe('kept');
  });
});
