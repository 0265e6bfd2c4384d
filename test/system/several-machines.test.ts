/** Several machines, one queue: supervisors with folders of their own, one PostgreSQL, and a folder that all see. */
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Job } from '@qwen-supervisor/protocol/job';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { POSTGRES } from '../debian-packages.js';
import { REPOSITORY } from '../fixture-files.js';
import { hasPostgres, privateCluster } from '../supervisor/jobs/postgres-engines.js';
import { readEvents } from './event-reader.js';
import { installNode } from './other-node.js';
import { cli, type Product, startProduct, until } from './product.js';

const PROGRAM = join(REPOSITORY, 'bin/qwen-supervisor.js');
const folder = mkdtempSync(join(tmpdir(), 'qwen-supervisor-machines-'));
/** What pg-boss asks for, whatever runs the tests. */
const node = hasPostgres() ? await installNode(24, folder) : null;

describe.skipIf(node === null)('several machines', () => {
  const postgres = privateCluster();
  const address = `postgres://postgres@localhost/postgres?host=${postgres.folder()}`;
  const shared = mkdtempSync(join(folder, 'shared-'));
  let [a, b]: Product[] = [];
  const start = () => startProduct(['--store', address, '--shared-folder', shared], undefined, {}, node as string);
  const program = (args: string[]) => execa(node as string, [PROGRAM, ...args], { reject: false });
  const here = () => a as Product;
  const there = () => b as Product;
  const picture = async (product: Product, id: string) => {
    const bytes = await (await product.fetch(`/api/v1/images/${id}`)).arrayBuffer();
    return createHash('sha256').update(Buffer.from(bytes)).digest('hex');
  };

  /** The one as the other knows it, when it does. */
  const both = () =>
    until(async () => {
      const { machines } = await here().status();
      return machines.length === 2 && machines.every(({ state }) => state === 'up') ? machines : null;
    });

  beforeAll(async () => {
    await postgres.start();
    const early = await program(['start', '--store', address, '--port', '0', '--data-dir', join(folder, 'early')]);
    expect(early.stderr).toMatch(/STORE_SCHEMA_OLD.*\n.*store migrate/);
    expect((await program(['store', 'migrate', '--store', address, '--shared-folder', shared])).stdout).toBe(
      'the tables were made or changed',
    );
    [a, b] = [await start(), await start()];
    await Promise.all([here().ready(), there().ready()]);
  });
  afterAll(async () => {
    await Promise.all([a?.clean(), b?.clean()]);
    rmSync(folder, { recursive: true, force: true });
  });

  test('a Node that is too old for it says so, and keeps the store that it can', async () => {
    if (Number(process.versions.node.split('.')[0]) >= 22) return;
    const { code, stderr } = await cli(['start', '--store', address, '--port', '0', '--data-dir', join(folder, 'old')]);
    expect([code, stderr]).toEqual([71, expect.stringMatching(/STORE_NODE_TOO_OLD.*\n.*22\.12/)]);
  });

  test('a machine on its own loads nothing of it', async () => {
    const env = {
      NODE_OPTIONS: `--import ${join(REPOSITORY, 'test/fixtures/children/loaded-modules.mjs')}`,
      LOADED_TO: join(folder, 'loaded'),
    };
    const loadedBy = (pid?: number) =>
      readFileSync(`${env.LOADED_TO}.${pid}`, 'utf8')
        .split('\n')
        .filter((path) => /node_modules\/pg/.test(path));
    const alone = await startProduct([], undefined, env, node as string);
    await alone.ready();
    alone.process.kill('SIGTERM');
    await alone.exited;
    expect(loadedBy(alone.process.pid)).toEqual([]);
    await alone.clean();
    const migrate = execa(node as string, [PROGRAM, 'store', 'migrate', '--store', address], { env });
    await migrate;
    expect(loadedBy(migrate.pid), 'what shares loads it').not.toEqual([]);
  });

  test('draw one queue together, and each gives the pictures of both', async () => {
    const prompts = ['a fox', 'a cat', 'a house', 'a tree', 'a boat', 'a star'];
    const put = await Promise.all(prompts.map((prompt) => here().submit({ prompt, numInferenceSteps: 8 })));
    const jobs = await Promise.all(put.map(({ id }) => there().ended(id)));
    expect(jobs.map(({ status }) => status)).toEqual(prompts.map(() => 'done'));
    const drawn = [here(), there()].map(
      ({ dataDir }) => readdirSync(join(dataDir, 'images')).filter((name) => name.endsWith('.png')).length,
    );
    expect(Math.min(...drawn), 'each has drawn some').toBeGreaterThan(0);
    for (const product of [here(), there()])
      for (const { id, images } of jobs)
        expect(await picture(product, images[0]?.id as string), id).toBe(images[0]?.sha256);
  });

  test('a client that waits at one machine gets its picture, whichever has drawn it', async () => {
    const before = readdirSync(join(there().dataDir, 'images')).length;
    const asks = [1, 2, 3, 4].map((seed) => here().call('/sdapi/v1/txt2img', { prompt: 'waited for', steps: 8, seed }));
    for (const { status, json } of await Promise.all(asks))
      expect([status, (json as { images: string[] }).images[0]?.slice(0, 8)]).toEqual([200, 'iVBORw0K']);
    expect(readdirSync(join(there().dataDir, 'images')).length, 'the other has drawn, too').toBeGreaterThan(before);
  });

  test('fifty clients with one key, at both machines, whose connections break at any moment, make one job', async () => {
    const body = JSON.stringify({ prompt: 'asked for fifty times', numInferenceSteps: 2 });
    const headers = { 'content-type': 'application/json', 'idempotency-key': 'fifty' };
    const ask = async (i: number): Promise<string> => {
      const product = [here(), there()][i % 2] as Product;
      const breaks = AbortSignal.timeout(Math.ceil(Math.random() * 60));
      const answer = await product.fetch('/api/v1/jobs', { method: 'POST', body, headers, signal: breaks }).then(
        (response) => response.json() as Promise<Job>,
        () => null,
      );
      return answer?.id ?? ask(i);
    };
    const ids = new Set(await Promise.all(Array.from({ length: 50 }, (_, i) => ask(i))));
    expect(ids.size).toBe(1);
    const { json } = await here().call('/api/v1/jobs?limit=100');
    const same = (json as { jobs: Job[] }).jobs.filter(({ prompt }) => prompt === 'asked for fifty times');
    expect(same).toHaveLength(1);
    await there().ended(same[0]?.id as string);
  });

  test('any of them tells of all: a machine that takes no more jobs, and how far a picture of the other is', async () => {
    const machines = await both();
    const [mine, other] = [machines.find(({ isHere }) => isHere)?.name, machines.find(({ isHere }) => !isHere)?.name];
    const listed = await program(['machines', 'list', '--data-dir', there().dataDir, '--json']);
    const names = listed.stdout.split('\n').map((line) => JSON.parse(line).name);
    expect(names.toSorted()).toEqual(machines.map(({ name }) => name).toSorted());
    const unknown = await program(['machines', 'drain', 'nobody', '--data-dir', here().dataDir]);
    expect(unknown.stderr).toMatch(/MACHINE_NOT_FOUND.*'nobody'/);
    // Told to the other, so that it is told over machines, too.
    const drained = await program(['machines', 'drain', mine as string, '--data-dir', there().dataDir]);
    expect(drained.stdout).toContain('takes no more jobs');
    await until(async () => ((await here().status()).machines.find(({ isHere }) => isHere)?.isDrained ? true : null));

    const events = await readEvents(`${here().url}/api/v1/events`);
    const { id } = await here().submit({ prompt: 'drawn elsewhere', numInferenceSteps: 600 });
    const step = await events.next(
      ({ name, data }) =>
        name === 'step' &&
        (data as { id: string; preview: unknown }).id === id &&
        (data as { preview: unknown }).preview !== null,
    );
    expect((step.data as { i: number; n: number }).n).toBe(600);
    const running = await here().job(id);
    expect(running).toMatchObject({ status: 'running', machine: other });
    expect(running.step).toBeGreaterThan(0);
    const snapshot = (await here().call('/api/v1/snapshot')).json as {
      running: Job[];
      previews: Record<string, string>;
    };
    expect(snapshot.running.map((job) => job.id)).toEqual([id]);
    expect(snapshot.previews[id]?.slice(0, 8)).toBe('iVBORw0K');
    const does = async () => (await here().status()).machines.find(({ name }) => name === other)?.workers[0];
    await until(async () => ((await does())?.job === id ? true : null));
    const done = await here().ended(id);
    expect(done).toMatchObject({ status: 'done', machine: other });
    expect(
      (await (await here().fetch('/metrics')).text()).match(/^qwen_supervisor_machine_drained.* 1$/m)?.[0],
    ).toContain(mine);

    // Both have it on their disks now, and the one hears what is done with it at the other.
    const image = done.images[0]?.id as string;
    expect(await picture(here(), image)).toBe(done.images[0]?.sha256);
    await there().fetch('/api/v1/images', {
      method: 'PATCH',
      body: JSON.stringify({ ids: [id], starred: true }),
      headers: { 'content-type': 'application/json' },
    });
    const heard = (change: string) =>
      events.next(({ name, data }) => name === 'pictures' && (data as { change: string }).change === change);
    await heard('starred');
    await there().fetch(`/api/v1/jobs/${id}`, { method: 'DELETE' });
    await heard('removed');
    expect(existsSync(join(here().dataDir, 'images', `${image}.png`))).toBe(false);
    events.close();
    expect((await program(['machines', 'resume', mine as string, '--data-dir', here().dataDir])).stdout).toBe(
      `${mine} takes jobs again`,
    );
    expect((await program(['status', '--data-dir', here().dataDir])).stdout).toMatch(
      /^machine +up .*, 0 of 1 workers draw/m,
    );
  });

  test('doctor looks at what they share', async () => {
    await both();
    const { stdout } = await program([
      'doctor',
      '--json',
      '--data-dir',
      here().dataDir,
      '--store',
      address,
      '--shared-folder',
      shared,
    ]);
    const { findings } = JSON.parse(stdout) as { findings: { about: string; result: string; says: string }[] };
    const about = (name: string) => findings.filter((finding) => finding.about === name).map(({ says }) => says);
    // The server of the tests does not keep what it has in a power cut, and has one user.
    expect(about('shared database')).toEqual([expect.stringContaining('fsync'), expect.stringContaining('superuser')]);
    expect(about('shared folder')).toEqual([expect.stringContaining(shared)]);
    expect(about('machines')).toEqual(['2 of 2 are up']);
    const nobody = ['--store', `postgres://localhost/nothing?host=${folder}`];
    const away = await program(['doctor', '--data-dir', join(folder, 'looked'), ...nobody]);
    expect(away.stdout).toMatch(/fail .*shared database.*STORE_UNREACHABLE/);
    const unmade = await program([
      'doctor',
      '--data-dir',
      join(folder, 'looked'),
      '--store',
      address.replace('/postgres?', '/template1?'),
    ]);
    expect(unmade.stdout).toMatch(/fail .*STORE_SCHEMA_OLD.*\n.*store migrate/);
  });

  test('a picture that was drawn on one is drawn over on the other', async () => {
    const drawn = await there().ended((await here().submit({ prompt: 'a fox', numInferenceSteps: 4 })).id);
    const over = { prompt: 'a red fox', initImage: drawn.images[0]?.id, numInferenceSteps: 4, strength: 0.5 };
    const jobs = await Promise.all([here(), there(), here(), there()].map((product) => product.submit(over)));
    for (const { id } of jobs) expect(await here().ended(id)).toMatchObject({ status: 'done', error: null });
  });

  test('a cancel reaches the machine that draws', async () => {
    const jobs = await Promise.all(
      [1, 2].map((seed) => here().submit({ prompt: 'long', numInferenceSteps: 500, seed })),
    );
    for (const { id } of jobs) await until(async () => ((await here().job(id)).status === 'running' ? true : null));
    for (const { id } of jobs) await there().call(`/api/v1/jobs/${id}/cancel`, {});
    for (const { id } of jobs) expect(await here().ended(id)).toMatchObject({ status: 'cancelled' });
  });

  const psql = (query: string) =>
    execa(join(POSTGRES, 'psql'), ['-h', postgres.folder(), '-U', 'postgres', '-v', 'ON_ERROR_STOP=1', '-c', query]);
  const migrate = () => program(['store', 'migrate', '--store', address, '--shared-folder', shared]);
  /** Until a machine waits for the tables. */
  const waitsForTables = (product: Product) =>
    until(async () => ((await product.status()).queue.problem?.includes('does not exist') ? true : null));

  test('tables of an older version: a start is refused, and those that draw wait until they are brought up to date, and nobody is stuck', async () => {
    // As they were two migrations ago.
    await psql('ALTER TABLE qwen_supervisor.jobs DROP COLUMN bytes, DROP COLUMN device_reason');
    await psql('UPDATE qwen_supervisor.version SET version = version - 2');
    const args = ['--store', address, '--shared-folder', shared];
    const early = await program(['start', ...args, '--port', '0', '--data-dir', join(folder, 'too-early')]);
    expect(early.stderr).toMatch(/STORE_SCHEMA_OLD/);
    const jobs = await Promise.all(
      Array.from({ length: 12 }, (_, seed) => here().submit({ prompt: 'meanwhile', numInferenceSteps: 4, seed })),
    );
    await Promise.all([waitsForTables(here()), waitsForTables(there())]);
    const migrated = await Promise.all([migrate(), migrate(), migrate()]);
    expect(migrated.map(({ stdout }) => stdout).toSorted()).toEqual([
      'the tables are up to date',
      'the tables are up to date',
      'the tables were made or changed',
    ]);
    for (const { id } of jobs) expect(await there().ended(id)).toMatchObject({ status: 'done', attempts: 1 });
  });

  test('tables that somebody has thrown away while machines draw: these wait, say what to do, and go on when there are new ones', async () => {
    const lost = await here().submit({ prompt: 'in no backup', numInferenceSteps: 400 });
    await until(async () => ((await here().job(lost.id)).status === 'running' ? true : null));
    // Whoever draws may hold one of them and wait for the other: then the database ends one of the two.
    await until(() =>
      psql('DROP SCHEMA qwen_supervisor CASCADE; DROP SCHEMA qwen_supervisor_queue CASCADE').catch(() => null),
    );
    await Promise.all([waitsForTables(here()), waitsForTables(there())]);
    const refused = await here().call('/api/v1/jobs', { prompt: 'lost?' });
    expect([refused.status, refused.json]).toEqual([
      503,
      { error: expect.objectContaining({ code: 'STORE_SCHEMA_OLD', hint: expect.stringContaining('store migrate') }) },
    ]);
    expect((await migrate()).stdout).toBe('the tables were made or changed');
    await both();
    const jobs = await Promise.all([1, 2, 3, 4].map((seed) => here().submit({ prompt: 'new', seed })));
    for (const { id } of jobs) expect(await there().ended(id)).toMatchObject({ status: 'done', attempts: 1 });
  });

  test('while the database is away nothing is accepted that could be lost, what is drawn is kept, and all goes on by itself', async () => {
    const { id } = await here().submit({ prompt: 'over the outage', numInferenceSteps: 500, seed: 5 });
    await until(async () => ((await here().job(id)).status === 'running' ? true : null));
    await postgres.control('stop', '-m', 'fast');
    const refused = await here().call('/api/v1/jobs', { prompt: 'lost?' });
    expect([refused.status, refused.json]).toEqual([
      503,
      { error: expect.objectContaining({ code: 'STORE_UNREACHABLE' }) },
    ]);
    const { stdout } = await program(['status', '--data-dir', here().dataDir]);
    expect(stdout, 'how it is can be asked all the same').toMatch(
      /^inference +\S+ +pid (.|\n)*^queue .*the job database/m,
    );
    expect((await here().fetch('/metrics')).status).toBe(200);
    const page = await here().call('/api/v1/snapshot');
    const why = { queue: { problem: expect.stringContaining('the job database') } };
    expect(page.json, 'so does a page that is opened now').toMatchObject({ queue: [], ended: [], status: why });
    await postgres.control('start');
    expect(
      await until(() =>
        there()
          .ended(id)
          .catch(() => null),
      ),
    ).toMatchObject({ status: 'done', attempts: 1 });
    const { id: later } = await until(() =>
      there()
        .submit({ prompt: 'after it', numInferenceSteps: 2 })
        .catch(() => null),
    );
    expect(await here().ended(later)).toMatchObject({ status: 'done' });
  });

  test('a shared folder that is not there is refused at the start; one that goes away makes a picture wait, and takes none with it', async () => {
    const nowhere = join(folder, 'not-mounted');
    const start = [
      'start',
      '--store',
      address,
      '--shared-folder',
      nowhere,
      '--port',
      '0',
      '--data-dir',
      join(folder, 'unmounted'),
    ];
    expect((await program(start)).stderr).toMatch(/SHARED_FOLDER_UNREACHABLE.*not-mounted.*\n.*store migrate/);
    const jobs = await Promise.all(
      [1, 2].map((seed) => here().submit({ prompt: 'waits', numInferenceSteps: 60, seed })),
    );
    for (const { id } of jobs) await until(async () => ((await here().job(id)).status === 'running' ? true : null));
    const images = join(here().dataDir, 'images');
    const before = readdirSync(images);
    renameSync(shared, `${shared}-away`);
    const waits = async (product: Product) => ((await product.status()).queue.problem?.includes(shared) ? true : null);
    await Promise.all([until(() => waits(here())), until(() => waits(there()))]);
    for (const { id } of jobs) expect(await here().job(id)).toMatchObject({ status: 'running', images: [] });
    const { id: unwanted } = await here().submit({ prompt: 'needs no folder' });
    const cancelled = await here().call(`/api/v1/jobs/${unwanted}/cancel`, {});
    expect(cancelled, 'what needs no folder goes on').toMatchObject({ status: 200, json: { status: 'cancelled' } });
    // Somebody who tidies up thinks that nobody needs the one that waits here.
    const [file] = readdirSync(images).filter((name) => !before.includes(name));
    rmSync(join(images, file as string));
    renameSync(`${shared}-away`, shared);
    const ended = await Promise.all(jobs.map(({ id }) => there().ended(id)));
    expect(ended.map(({ status, attempts }) => [status, attempts]).toSorted()).toEqual([
      ['done', 1],
      ['done', 2],
    ]);
    for (const { images } of ended) expect(await picture(there(), images[0]?.id as string)).toBe(images[0]?.sha256);
  });

  test('a machine that has lost its database and its folder ends when it is told to', async () => {
    const lost = await start();
    await lost.ready();
    await postgres.control('stop', '-m', 'immediate');
    await until(async () => ((await lost.status()).queue.problem !== null ? true : null));
    rmSync(lost.dataDir, { recursive: true, force: true });
    lost.process.kill('SIGTERM');
    await lost.exited;
    await postgres.control('start');
    const answer = () =>
      here()
        .status()
        .catch(() => null);
    await until(async () => ((await answer())?.queue.problem === null ? true : null));
  });

  test('a machine that dies with all that is on it: another one goes on at the step that was copied, and draws the same picture', async () => {
    const request = { prompt: 'a fox that outlives its machine', numInferenceSteps: 300, seed: 7 };
    // Both draw, so that either may be the one that dies.
    const jobs = await Promise.all([1, 2].map(() => here().submit(request)));
    const checkpoints = join(shared, 'checkpoints');
    const copied = await until(async () => {
      const names = existsSync(checkpoints) ? readdirSync(checkpoints).filter((name) => name.endsWith('.ckpt')) : [];
      const steps = jobs.map(({ id }) =>
        Math.max(0, ...names.filter((name) => name.startsWith(id)).map((name) => Number(name.split('.')[1]))),
      );
      return steps.every((step) => step > 20) ? steps : null;
    });
    const log = readFileSync(join(there().dataDir, 'logs/supervisor.log'), 'utf8');
    const lost = jobs.findIndex(({ id }) => log.includes(id));
    there().process.kill('SIGKILL');
    await there().exited;
    const done = await Promise.all(jobs.map(({ id }) => here().ended(id)));
    expect(done[lost]).toMatchObject({ status: 'done', attempts: 2, startedOverReason: null });
    expect(done[lost]?.resumedAtStep).toBeGreaterThanOrEqual(copied[lost] as number);
    expect(done[1 - lost]).toMatchObject({ status: 'done', attempts: 1 });
    expect(done[lost]?.images[0]?.sha256).toBe(done[1 - lost]?.images[0]?.sha256);
    const left = () => readdirSync(checkpoints).filter((name) => jobs.some(({ id }) => name.startsWith(id)));
    await until(async () => (left().length === 0 ? true : null));
  });
});
