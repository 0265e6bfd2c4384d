/** What is read from the kernel, from nvidia-smi and from systemd. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { initialState, type State, withChild, workerOf } from '@qwen-supervisor/supervisor/core/state';
import { measureDevice, probeDevice } from '@qwen-supervisor/supervisor/devices/device-memory';
import { countOomKills } from '@qwen-supervisor/supervisor/processes/oom-kills';
import { threadStates } from '@qwen-supervisor/supervisor/processes/thread-states';
import { describeToSystemd, takeActivation } from '@qwen-supervisor/supervisor/service/systemd-notify';
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';
import { temporaryFolder } from '../../fixture-files.js';

describe('the count of OOM kills', () => {
  function rootWith(files: Record<string, string>): string {
    const root = temporaryFolder();
    for (const [name, content] of Object.entries(files)) {
      mkdirSync(dirname(join(root, name)), { recursive: true });
      writeFileSync(join(root, name), content);
    }
    return root;
  }

  test.each([
    [
      'cgroup v2',
      {
        'proc/self/cgroup': '0::/user.slice/session-1.scope\n',
        'sys/fs/cgroup/user.slice/session-1.scope/memory.events': 'low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\n',
        'proc/vmstat': 'oom_kill 9\n',
      },
      2,
    ],
    [
      'cgroup v1',
      {
        'proc/self/cgroup': '5:cpu,cpuacct:/a\n4:memory:/box/1\n0::/\n',
        'sys/fs/cgroup/memory/box/1/memory.oom_control': 'oom_kill_disable 0\nunder_oom 0\noom_kill 4\n',
      },
      4,
    ],
    ['the whole machine', { 'proc/self/cgroup': '0::/\n', 'proc/vmstat': 'nr_free_pages 1\noom_kill 9\n' }, 9],
    ['no such system', {}, null],
  ])('comes from %s', (_title, files, count) => {
    expect(countOomKills(rootWith(files as Record<string, string>))).toBe(count);
  });
});

describe('device memory', () => {
  const { PATH } = process.env;
  afterEach(() => {
    process.env.PATH = PATH;
  });

  /** A program that answers as nvidia-smi does, from two files. */
  function fakeNvidiaSmi(): (free: number | string, apps: string) => void {
    const folder = temporaryFolder();
    const file = join(folder, 'nvidia-smi');
    writeFileSync(
      file,
      `#!/bin/sh\n[ "$2" = --id=1 ] || exit 6\ncase "$1" in *memory.free*) cat ${folder}/free;; *) cat ${folder}/apps;; esac\n`,
    );
    chmodSync(file, 0o755);
    process.env.PATH = `${folder}:${PATH}`;
    return (free, apps) => {
      writeFileSync(join(folder, 'free'), `${free}\n`);
      writeFileSync(join(folder, 'apps'), apps);
    };
  }

  test('is what nvidia-smi says of that card: held by a process, free now, and who holds the most', async () => {
    const answer = fakeNvidiaSmi();
    answer(4000, '77, 20000, node\n88, 100, Xorg\n');
    expect(await measureDevice(77, 1)).toEqual({ heldBytes: 20_000 * 2 ** 20, freeBytes: 4000 * 2 ** 20 });
    expect(await probeDevice(1)).toEqual({ freeBytes: 4000 * 2 ** 20, holder: 'process 77 (node, 21.0 GB)' });
    expect((await probeDevice(1, [77])).holder, 'of others').not.toContain('process 77');
  });

  test('of a process whose name holds commas is not cut', async () => {
    fakeNvidiaSmi()(5000, '88, 100, Xorg\n99, 19000, /opt/a, b/python3\n');
    expect(await probeDevice(1)).toMatchObject({ holder: 'process 99 (/opt/a, b/python3, 19.9 GB)' });
  });

  test('that is not told as a number keeps nobody waiting', async () => {
    fakeNvidiaSmi()('[N/A]', '77, 20000, node\n');
    expect(await measureDevice(77, 1)).toEqual({ heldBytes: 0, freeBytes: 0 });
    expect(await probeDevice(1)).toMatchObject({ freeBytes: null });
  });

  test('is nobody’s concern without a device, or when nvidia-smi fails', async () => {
    expect(await measureDevice(77, 1)).toEqual({ heldBytes: 0, freeBytes: 0 });
    expect(await probeDevice(1)).toEqual({ freeBytes: null, holder: null });
  });
});

describe('systemd', () => {
  test('gives a socket, a watchdog and a place to tell things only to the process that it means', () => {
    const env: NodeJS.ProcessEnv = {
      LISTEN_PID: String(process.pid),
      LISTEN_FDS: '1',
      WATCHDOG_USEC: '30000000',
      NOTIFY_SOCKET: '/run/x',
      HOME: '/',
    };
    expect(takeActivation(env)).toEqual({ listenFds: [3], notify: true, watchdogMs: 30_000 });
    expect(env).toEqual({ NOTIFY_SOCKET: '/run/x', HOME: '/' });
    const others = { LISTEN_PID: '1', LISTEN_FDS: '1', WATCHDOG_PID: '1', WATCHDOG_USEC: '1' };
    expect(takeActivation(others)).toEqual({ listenFds: [], notify: false, watchdogMs: null });
  });

  test('is told of readiness when requests are taken, or when pictures can be drawn, never by time', () => {
    const states = (api: 'starting' | 'ready', inference: 'loading' | 'ready', share = 0): State => {
      const state = initialState(['inference']);
      const worker = workerOf(state, 'inference').child;
      const load = { ...worker.load, share };
      const withApi = withChild(state, { ...state.api, phase: api });
      return withChild(withApi, { ...worker, phase: inference, reason: inference, load });
    };
    expect(describeToSystemd(states('starting', 'ready'), 'api').ready).toBe(false);
    expect(describeToSystemd(states('ready', 'loading'), 'api').ready).toBe(true);
    expect(describeToSystemd(states('ready', 'loading', 0.62), 'model')).toEqual({
      ready: false,
      status: 'loading the model, 60 %',
    });
    expect(describeToSystemd(states('ready', 'ready'), 'model')).toEqual({ ready: true, status: 'ready' });
  });
});

test('the threads of a stopped process are named with their states', async () => {
  const child = spawn('sleep', ['60']);
  onTestFinished(() => void child.kill('SIGKILL'));
  await once(child, 'spawn');
  expect(threadStates(child.pid as number)[0]).toMatch(/^thread \d+ \S+: [RSDT], waits in \S+, \d+ ticks$/);
  expect(threadStates(2 ** 22 - 1)).toEqual([]);
});
