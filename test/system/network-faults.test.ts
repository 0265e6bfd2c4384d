/**
 * Several machines on a network that fails: cables that are pulled, machines that die, databases that stand still.
 * Short here; FULL=1 repeats it, and takes half an hour (npm run test:machines).
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isTerminal, type Job } from '@qwen-supervisor/protocol/job';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { POSTGRES } from '../debian-packages.js';
import { REPOSITORY } from '../fixture-files.js';
import { hasPostgres, privateCluster } from '../supervisor/jobs/postgres-engines.js';
import { Line } from './line.js';
import { NettedMachine, type Shared, twinOf } from './netted-machine.js';
import { canHaveNetworks, makeNetwork, type Network } from './network.js';
import { installNode } from './other-node.js';
import { until } from './product.js';

const FULL = process.env.FULL === '1';
const folder = mkdtempSync(join(tmpdir(), 'qwen-supervisor-network-'));
const isPossible = hasPostgres() && canHaveNetworks();
const node = isPossible ? await installNode(24, folder) : null;
const NOWHERE: Network = { address: '', addresses: '', machines: [], remove() {} };
const STEP_MS = 50;
const CLOCKS = ['-1h', '+1h', '+3d'];
const OFF_MS = [-1, 1, 72].map((hours) => hours * 3_600_000);
const FAKETIME = `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/faketime/libfaketimeMT.so.1`;
// Of a test that repeats what it does.
if (FULL) vi.setConfig({ testTimeout: 3_600_000 });
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe.skipIf(node === null)('machines on a network that fails', () => {
  const network = node === null ? NOWHERE : makeNetwork(FULL ? 5 : 3);
  const postgres = privateCluster(network);
  const store = `postgres://postgres@${network.address}/postgres`;
  const shared: Shared = { node: node as string, store, folder: join(folder, 'shared'), root: folder, stepMs: STEP_MS };
  let machines: NettedMachine[] = [];
  const at = (i: number) => machines[i] as NettedMachine;
  const psql = async (query: string) => {
    const args = ['-h', postgres.folder(), '-U', 'postgres', '-AtF', ' ', '-c', query];
    return (await execa(join(POSTGRES, 'psql'), args)).stdout;
  };
  /** As the database has it, whoever can still be asked. */
  const jobs = async (prompt: string) => {
    const columns = "id, status, attempts, step, machine, image::json ->> 'sha256'";
    const rows = await psql(`SELECT ${columns} FROM qwen_supervisor.jobs WHERE prompt = '${prompt}' ORDER BY position`);
    return rows.split('\n').map((row) => {
      const [id = '', status = '', attempts = '', step = '', machine = '', sha256 = ''] = row.split(' ');
      return { id, status: status as Job['status'], attempts: Number(attempts), step: Number(step), machine, sha256 };
    });
  };
  const allEnded = (prompt: string) =>
    until(async () => {
      const known = await jobs(prompt);
      return known.every(({ status }) => isTerminal(status)) ? known : null;
    }, 1_800_000);
  /** Everything was drawn, once, and as if nothing had happened. */
  const expectTwins = async (prompt: string, asked: Job[]) => {
    const ended = await allEnded(prompt);
    expect(ended.map(({ id, status, sha256 }) => [id, status, sha256])).toEqual(
      asked.map((job) => [job.id, 'done', twinOf(job)]),
    );
    return ended;
  };
  /** The machine that draws the job. */
  const drawerOf = (id: string) =>
    until(async () => {
      for (const machine of machines) {
        const { children } = await machine.status().catch(() => ({ children: [] }));
        if (children.some(({ job }) => job === id)) return machine;
      }
      return null;
    });
  const everyone = async (devices = 'cpu') => {
    for (const machine of machines) machine.start({ devices });
    await Promise.all(machines.map((machine) => machine.ready()));
  };

  /** Another supervisor in the place of this one, whose way to the database is a line of its own. */
  const lined = async ({ net }: NettedMachine) => {
    const line = new Line(join(postgres.folder(), '.s.PGSQL.5432'));
    onTestFinished(() => line.close());
    const port = await line.listen(network.address);
    const machine = new NettedMachine(net, {
      ...shared,
      store: `postgres://postgres@${network.address}:${port}/postgres`,
    });
    onTestFinished(() => machine.stop());
    return { line, machine };
  };

  beforeAll(async () => {
    await postgres.start();
    mkdirSync(shared.folder);
    const migrate = ['store', 'migrate', '--store', store, '--shared-folder', shared.folder];
    await execa(node as string, [join(REPOSITORY, 'bin/qwen-supervisor.js'), ...migrate]);
    machines = network.machines.map((net) => new NettedMachine(net, shared));
    await everyone();
  });
  afterAll(async () => {
    await Promise.all(machines.map((machine) => machine.stop()));
    network.remove();
    rmSync(folder, { recursive: true, force: true });
  });

  test('a SIGKILL every second, of a worker or a supervisor of any of them: every job is done once, and its picture is the one that nobody has disturbed', async () => {
    const count = FULL ? 2000 : 120;
    const asked: Job[] = [];
    while (asked.length < count) asked.push(...(await at(0).submit(Math.min(100, count - asked.length), 8, 'killed')));
    let kills = 0;
    let isOver = false;
    const killing = (async () => {
      while (!isOver) {
        await sleep(1000);
        const machine = at(kills % machines.length);
        const { children } = await machine.status().catch(() => ({ children: [] }));
        const workers = children.flatMap(({ name, pid }) => (name !== 'api' && pid !== null ? [pid] : []));
        // A worker three times, then the supervisor.
        const pid = kills % 4 === 3 ? machine.pid : (workers[0] ?? machine.pid);
        try {
          process.kill(pid, 'SIGKILL');
          kills++;
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
        }
      }
    })();
    const ended = await expectTwins('killed', asked).finally(() => {
      isOver = true;
    });
    await killing;
    expect(kills).toBeGreaterThan(3);
    expect(Math.max(...ended.map(({ attempts }) => attempts)), 'somebody was hit').toBeGreaterThan(1);
    await Promise.all(machines.map((machine) => machine.ready()));
    const leftovers = () => [
      ...readdirSync(join(shared.folder, 'checkpoints')),
      ...readdirSync(join(shared.folder, 'previews')),
    ];
    // What one has left that was killed when it was about to tidy up, it removes at its next start.
    for (const machine of machines) process.kill(machine.pid, 'SIGKILL');
    await until(async () => (leftovers().length === 0 ? true : null));
    console.log(
      `${count} jobs, ${kills} kills, ${machines.reduce((sum, { starts }) => sum + starts, 0)} starts of supervisors`,
    );
  });

  test('a machine that dies without a word: another one goes on within fifteen seconds, at the step that was copied or a later one', async () => {
    const seconds: number[] = [];
    for (let round = 0; round < (FULL ? 20 : 1); round++) {
      const prompt = `dies ${round}`;
      const [job] = await at(0).submit(1, 120, prompt);
      const { id } = job as Job;
      const machine = await drawerOf(id);
      const copied = await until(async () => {
        const names = readdirSync(join(shared.folder, 'checkpoints')).filter(
          (name) => name.startsWith(`${id}.`) && name.endsWith('.ckpt'),
        );
        return names.length > 0 ? Math.max(...names.map((name) => Number(name.split('.')[1]))) : null;
      });
      machine.net.cut('both');
      machine.die();
      const diedMs = performance.now();
      const other = await until(async () => {
        const [now] = await jobs(prompt);
        return now?.attempts === 2 && now.step > 0 ? now : null;
      });
      seconds.push((performance.now() - diedMs) / 1000);
      expect(other.step).toBeGreaterThanOrEqual(copied);
      machine.net.heal();
      machine.start();
      await machine.ready();
      await expectTwins(prompt, [job as Job]);
    }
    const sorted = seconds.toSorted((a, b) => a - b);
    console.log(`a death was answered after ${sorted.map((one) => one.toFixed(1)).join(', ')} s`);
    // The bound is of the design: ten seconds without a sign of life, a sweep every two, and a claim.
    expect(sorted.at(-1)).toBeLessThan(15);
  });

  const CUTS: [ms: number, which: 'both' | 'in' | 'out'][] = FULL
    ? [5000, 12_000, 60_000].flatMap((ms) =>
        (['both', 'in', 'out'] as const).map((which): [number, typeof which] => [ms, which]),
      )
    : [[15_000, 'out']];
  test.each(CUTS)(
    'a machine that is cut off for %i ms (%s) and lives: its job has one end, and the right picture',
    async (ms, which) => {
      const prompt = `cut off ${ms} ${which}`;
      const [job] = await at(0).submit(1, 200, prompt);
      const machine = await drawerOf((job as Job).id);
      const name = (await jobs(prompt))[0]?.machine;
      machine.net.cut(which);
      onTestFinished(() => machine.net.heal());
      const others = await (machines.find((one) => one !== machine) as NettedMachine).submit(
        20,
        10,
        `others ${prompt}`,
      );
      await sleep(ms);
      const begun = (await jobs(`others ${prompt}`)).filter(({ attempts }) => attempts > 0);
      expect(begun.length).toBeGreaterThan(0);
      expect(begun.filter((one) => one.machine === name)).toEqual([]);
      machine.net.heal();
      await expectTwins(`others ${prompt}`, others);
      await expectTwins(prompt, [job as Job]);
      // It heals by itself, and draws again.
      const later = await machine.submit(1, 2, `after it ${prompt}`);
      await expectTwins(`after it ${prompt}`, later);
      await until(async () => ((await machine.status()).children.some(({ job }) => job !== null) ? null : true));
    },
  );

  test('a supervisor that stands still while its job is taken, and moves when another one draws it, ends nothing', async () => {
    for (let round = 0; round < (FULL ? 10 : 1); round++) {
      const prompt = `frozen ${round}`;
      const [job] = await at(0).submit(1, 120, prompt);
      const machine = await drawerOf((job as Job).id);
      const frozen = machine.net.pids();
      for (const pid of frozen) process.kill(pid, 'SIGSTOP');
      await until(async () => ((await jobs(prompt))[0]?.attempts === 2 ? true : null));
      for (const pid of frozen) process.kill(pid, 'SIGCONT');
      const [ended] = await expectTwins(prompt, [job as Job]);
      expect(ended?.attempts).toBe(2);
    }
  });

  test('a machine that dies between its claim and the commit of it: nobody had the job, and another one draws it', async () => {
    const [dying, other] = [at(0), at(1)];
    await Promise.all(machines.map((machine) => machine.stop()));
    const { line, machine } = await lined(dying);
    for (const one of [machine, other]) one.start();
    await Promise.all([machine.ready(), other.ready()]);
    // Out of service: else it may be the first.
    const nameHere = async () => (await other.status()).machines.find(({ isHere }) => isHere)?.name ?? null;
    const name = await until(nameHere);
    await other.call('drainMachine', { name, isDrained: true });
    const held = line.holdCommitOf('SKIP LOCKED');
    const [job] = await machine.submit(1, 20, 'claimed by the dead');
    await held;
    machine.net.cut('both');
    machine.die();
    const diedMs = performance.now();
    await other.call('drainMachine', { name, isDrained: false });
    await until(async () => ((await jobs('claimed by the dead'))[0]?.status === 'queued' ? null : true));
    const seconds = (performance.now() - diedMs) / 1000;
    console.log(`claimed again after ${seconds.toFixed(1)} s`);
    // The bound is of the design: a transaction that stands open is ended by the server after five seconds.
    expect(seconds).toBeLessThan(10);
    const [ended] = await expectTwins('claimed by the dead', [job as Job]);
    expect(ended?.attempts, 'the first one never was').toBe(1);
    machine.net.heal();
    await other.stop();
    await everyone();
  });

  test.runIf(FULL)(
    'lines on which everything takes a third of a second and some of it more than one: nobody loses a job for it, and each is drawn once',
    async () => {
      await Promise.all(machines.map((machine) => machine.stop()));
      const far = await Promise.all(machines.map((machine) => lined(machine)));
      for (const { line, machine } of far) {
        // Half a round trip is 100 to 500 ms; of twenty pieces one is lost, and sent again a second later.
        line.delay = () => 100 + Math.random() * 400 + (Math.random() < 0.05 ? 1000 : 0);
        machine.start();
      }
      await Promise.all(far.map(({ machine }) => machine.ready()));
      const [first] = far;
      const asked = (await first?.machine.submit(100, 20, 'far away')) as Job[];
      const ended = await expectTwins('far away', asked);
      expect(ended.filter(({ attempts }) => attempts > 1)).toEqual([]);
      expect(new Set(ended.map(({ machine }) => machine)).size, 'all have drawn').toBe(machines.length);
      await Promise.all(far.map(({ machine }) => machine.stop()));
      await everyone();
    },
  );

  test('clocks that are wrong by hours and days: nobody takes a job that lives for one that is lost, and one that is lost is drawn', async () => {
    await Promise.all(machines.map((machine) => machine.stop()));
    for (const [i, machine] of machines.entries()) {
      const clock = CLOCKS[i % CLOCKS.length] as string;
      machine.start({ env: { LD_PRELOAD: FAKETIME, FAKETIME: clock, FAKETIME_DONT_FAKE_MONOTONIC: '1' } });
    }
    await Promise.all(machines.map((machine) => machine.ready()));
    for (const [i, { dataDir }] of machines.entries()) {
      const line = readFileSync(join(dataDir, 'logs/supervisor.log'), 'utf8').trimEnd().split('\n').at(-1) as string;
      const off = Date.parse(JSON.parse(line).time) - Date.now();
      expect(Math.abs(off - (OFF_MS[i % OFF_MS.length] as number)), 'its clock is wrong').toBeLessThan(300_000);
    }
    const asked = await at(0).submit(FULL ? 100 : 12, 40, 'another time');
    const ended = await expectTwins('another time', asked);
    expect(ended.filter(({ attempts }) => attempts > 1)).toEqual([]);
    const { machines: known } = await at(1).status();
    const isNear = (at: string) => Math.abs(Date.parse(at) - Date.now()) < 60_000;
    expect(known.filter(({ state, seenAt }) => state === 'up' && isNear(seenAt)).length).toBe(machines.length);
    const [lost] = await at(0).submit(1, 120, 'lost in time');
    const machine = await drawerOf((lost as Job).id);
    machine.die();
    const [again] = await expectTwins('lost in time', [lost as Job]);
    expect(again?.attempts).toBe(2);
    await Promise.all(machines.map((one) => one.stop()));
    await everyone();
  });

  test.runIf(FULL)(
    'a database that stands still, loses all its connections, restarts, or is away for half a minute, under load',
    async () => {
      const standStill = async (ms: number) => {
        const postmaster = readFileSync(join(postgres.folder(), 'data/postmaster.pid'), 'utf8').split('\n', 1);
        const others = (await psql('SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()')).split('\n');
        const pids = [...postmaster, ...others].map(Number);
        for (const pid of pids) process.kill(pid, 'SIGSTOP');
        await sleep(ms);
        for (const pid of pids) process.kill(pid, 'SIGCONT');
      };
      const faults: [string, () => Promise<unknown>][] = [
        [
          'all cut',
          () =>
            psql(
              "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
            ),
        ],
        ['stands still', () => standStill(15_000)],
        ['restarts', () => postgres.control('restart', '-m', 'fast')],
        ['dies', () => postgres.control('stop', '-m', 'immediate').then(() => postgres.control('start'))],
        [
          'away',
          () =>
            postgres
              .control('stop', '-m', 'fast')
              .then(() => sleep(30_000))
              .then(() => postgres.control('start')),
        ],
      ];
      for (const [name, fault] of faults) {
        const prompt = `database ${name}`;
        const asked = await at(0).submit(40, 40, prompt);
        await sleep(3000);
        await fault();
        const ended = await expectTwins(prompt, asked);
        expect(
          ended.filter(({ attempts }) => attempts > 1),
          `${name}: nobody draws anew for it`,
        ).toEqual([]);
        console.log(`${name}: ${asked.length} jobs, none drawn twice`);
      }
    },
  );

  test.runIf(FULL)(
    'cancels from anywhere at any moment: one end each, and nobody goes on with what is cancelled',
    async () => {
      const asked = await at(0).submit(500, 10, 'cancelled');
      // In no order, as their ids are: some have ended by then, and some end at that moment.
      for (const [i, id] of asked
        .map((job) => job.id)
        .toSorted()
        .entries()) {
        await sleep(40);
        await at(i % machines.length).call('cancelJob', { id, ifQueued: false });
      }
      const ended = await allEnded('cancelled');
      expect(ended.every(({ status }) => status === 'cancelled' || status === 'done')).toBe(true);
      for (const [i, { status, sha256 }] of ended.entries())
        if (status === 'done') expect(sha256).toBe(twinOf(asked[i] as Job));
      console.log(
        `${ended.filter(({ status }) => status === 'done').length} of ${ended.length} were done before their cancel`,
      );
    },
  );

  test.runIf(FULL)('listeners on every machine hear all that happens to every job, in order', async () => {
    const heard = new Map<string, string[]>();
    const listeners = machines.flatMap((machine, m) =>
      Array.from({ length: 40 }, (_, l) => ({ machine, name: `${m}.${l}` })),
    );
    const clients = await Promise.all(
      listeners.map(({ machine, name }) =>
        machine.listen({
          event(event) {
            if (!('jobId' in event) || event.type === 'step' || event.type === 'progress') return;
            const key = `${name} ${event.jobId}`;
            heard.set(key, [...(heard.get(key) ?? []), event.type]);
          },
          missed() {},
          workerFailed() {},
        }),
      ),
    );
    for (const { link } of clients) await link.request('subscribe', { since: null });
    const asked = await at(0).submit(60, 10, 'heard');
    await expectTwins('heard', asked);
    await sleep(1000);
    for (const { link } of clients) link.close();
    const told = asked.flatMap(({ id }) => listeners.map(({ name }) => heard.get(`${name} ${id}`)?.join(' ')));
    expect([...new Set(told)]).toEqual(['queued running done']);
  });
});
