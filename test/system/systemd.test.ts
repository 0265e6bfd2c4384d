/**
 * What systemd does with a service, done by hand: a socket that is passed, a place to tell things, a small memory
 * group.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { join } from 'node:path';
import { execaSync } from 'execa';
import { afterEach, expect, onTestFinished, test } from 'vitest';
import { REPOSITORY, temporaryFolder } from '../fixture-files.js';
import { cli, NASTY, type Product, processesWith, startProduct, until } from './product.js';

let product: Product | null = null;
afterEach(async () => {
  await product?.clean();
  product = null;
});

const has = (program: string) => execaSync('sh', ['-c', `command -v ${program}`], { reject: false }).exitCode === 0;

/** Receives datagrams: Node has no sockets of this kind. */
const RECEIVER = `use Socket; $| = 1; socket(S, AF_UNIX, SOCK_DGRAM, 0); bind(S, pack_sockaddr_un($ARGV[0])) or die;
print "bound\\n"; while (recv(S, $m, 65536, 0), defined $m) { $m =~ s/\\n/|/g; print "$m\\n" }`;

test.skipIf(!has('systemd-notify') || !has('perl'))(
  'systemd is told of the load, of readiness when it is true, that the loop turns, of a reload, and of the stop',
  async () => {
    const socket = join(temporaryFolder(), 'notify');
    const receiver = spawn('perl', ['-e', RECEIVER, socket]);
    onTestFinished(() => void receiver.kill());
    let heard = '';
    receiver.stdout.on('data', (chunk) => {
      heard += chunk;
    });
    await until(async () => (heard.includes('bound') ? true : null));
    product = await startProduct(['--systemd-ready', 'model'], undefined, {
      NOTIFY_SOCKET: socket,
      WATCHDOG_USEC: '1500000',
    });
    await product.ready();
    await until(async () => (heard.includes('WATCHDOG=1') && heard.includes('READY=1') ? true : null));
    const before = heard.length;
    expect(await cli(['reload', '--data-dir', product.dataDir])).toMatchObject({ code: 0 });
    // Type=notify-reload waits for the second.
    await until(async () =>
      /RELOADING=1\|MONOTONIC_USEC=\d+\n[\s\S]*READY=1/.test(heard.slice(before)) ? true : null,
    );
    product.process.kill('SIGTERM');
    expect(await product.exited).toMatchObject({ code: 0 });
    await until(async () => (heard.includes('STOPPING=1') ? true : null));
    const told = heard
      .split('\n')
      .slice(1)
      .filter((line) => line !== '' && !/WATCHDOG|BARRIER/.test(line));
    expect(told[0]).toMatch(/EXTEND_TIMEOUT_USEC=60000000\|STATUS=process starting/);
    expect(told.some((line) => /EXTEND_TIMEOUT_USEC=60000000\|STATUS=loading the model, \d+ %/.test(line))).toBe(true);
    const ready = told.findIndex((line) => line.includes('READY=1'));
    expect(told[ready]).toMatch(/READY=1\|STATUS=ready/);
    expect(told.slice(0, ready).every((line) => line.includes('EXTEND_TIMEOUT_USEC'))).toBe(true);
    expect(told.at(-1)).toMatch(/STOPPING=1\|EXTEND_TIMEOUT_USEC=60000000\|STATUS=stopping/);
  },
);

/** Binds and listens as a socket unit does, and starts the service again whenever it ends. */
const SOCKET_UNIT = `use IO::Socket::INET; use POSIX; $| = 1; $^F = 10;
my $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 64) or die;
print "port ", $s->sockport, "\n";
$SIG{TERM} = sub { kill "KILL", $p; exit };
while (1) {
  $p = fork();
  if (!$p) { POSIX::dup2(fileno($s), 3); $ENV{LISTEN_PID} = $$; $ENV{LISTEN_FDS} = 1; exec @ARGV }
  print "pid $p\n"; waitpid($p, 0);
}`;

test.skipIf(!has('perl'))(
  'on a socket unit no connection is refused even while the supervisor itself is killed and started again',
  async () => {
    const dataDir = temporaryFolder();
    const bin = join(REPOSITORY, 'bin/qwen-supervisor.js');
    const unit = spawn('perl', ['-e', SOCKET_UNIT, process.execPath, bin, 'start', '--data-dir', dataDir]);
    let output = '';
    unit.stdout.on('data', (chunk) => {
      output += chunk;
    });
    onTestFinished(async () => {
      unit.kill();
      await until(async () => (processesWith(`QWEN_SUPERVISOR_CHILD_DATA_DIR=${dataDir}`).length === 0 ? true : null));
    });
    const port = await until(async () => /port (\d+)/.exec(output)?.[1] ?? null);
    // Asked before anything has started: the kernel keeps the connection until the API takes it.
    // A new connection each time: one that the dead API had open is gone with it.
    const health = () =>
      new Promise((resolve, reject) => {
        const request = get(`http://127.0.0.1:${port}/healthz`, { agent: false }, (response) => {
          response.resume();
          resolve(response.statusCode);
        });
        request.on('error', reject);
      });
    expect(await health()).toBe(200);
    const pids = () => [...output.matchAll(/^pid (\d+)$/gm)].map((match) => Number(match[1]));
    for (let kill = 1; kill <= 3; kill++) {
      process.kill(pids().at(-1) as number, 'SIGKILL');
      await until(async () => (pids().length > kill ? true : null));
      expect(await health()).toBe(200);
    }
  },
);

const GROUPS = '/sys/fs/cgroup/memory';

/** A group of cgroup v1 that may use so much memory; null where this machine lets us make none. */
function memoryGroup(bytes: number): string | null {
  const group = join(GROUPS, `qwen-supervisor-test-${process.pid}`);
  try {
    mkdirSync(group);
    writeFileSync(join(group, 'memory.limit_in_bytes'), String(bytes));
    return group;
  } catch {
    return null;
  }
}

const group = memoryGroup(700e6);

test.skipIf(group === null)(
  'a worker that the kernel kills for memory is known as such: its job is failed after two deaths, the supervisor lives',
  async () => {
    onTestFinished(async () => {
      await product?.clean();
      product = null;
      await until(async () => (readFileSync(join(group as string, 'cgroup.procs'), 'utf8') === '' ? true : null));
      rmdirSync(group as string);
    });
    product = await startProduct([], undefined, NASTY);
    // The children of the supervisor that come after this are in the group, too.
    writeFileSync(join(group as string, 'cgroup.procs'), String(product.process.pid));
    await cli(['restart', '--data-dir', product.dataDir]);
    await product.ready();
    const { id } = await product.submit({ prompt: 'hog' });
    expect(await product.ended(id)).toMatchObject({ status: 'failed', attempts: 2, error: { code: 'JOB_POISONED' } });
    const [inference] = (await product.status()).children;
    expect(inference).toMatchObject({ restarts: 2, lastExit: { signal: 'SIGKILL', cause: 'oom-killed' } });
    const good = await product.submit({ prompt: 'a fox', numInferenceSteps: 2 });
    expect(await product.ended(good.id)).toMatchObject({ status: 'done' });
  },
);
