/** A whole system of our own, in a scratch folder and on a free port: to be killed in. */
import { existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { Config } from '@qwen-supervisor/protocol/config';
import { MODELS_FOLDER, TEMPORARY_FOLDER } from '@qwen-supervisor/protocol/data-files';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { type ChildName, isUp } from '@qwen-supervisor/protocol/status';
import { execa } from 'execa';
import { connect } from '../cli/client.js';
import { RUNTIME_FOLDER } from '../devices/cuda-runtime.js';
import { processState } from '../machine/process-state.js';
import { deathSignalLauncher } from '../processes/spawn-child.js';
import { findSurvivors } from '../processes/survivors.js';

/** Lines of the log that are told where the start fails. */
const LAST_LINES = 5;

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
/**
 * Whoever looks on needs no keys, does not wait for a worker that dies again and again, and compares pictures: on
 * another kind of card they come out otherwise.
 */
const OWN: Partial<Config> = {
  // Jobs of its own, which nobody else draws.
  store: 'sqlite',
  'shared-folder': '',
  'keys-file': '',
  'path-prefix': '',
  'restart-max': 3,
  'log-level': 'info',
  'resume-elsewhere': 'wait',
};

export interface ScratchSystem {
  url: string;
  dataDir: string;
  /** Resolves when every worker can draw. @throws CodedError VERIFY_FAILED where one never will */
  ready(): Promise<void>;
  pidOf(name: ChildName): Promise<number>;
  /** Asks it to stop. @throws CodedError VERIFY_FAILED for an exit code that is not 0 */
  stop(): Promise<void>;
  /** What it has left behind, in words. */
  leftOvers(): string[];
  /** Ends whatever is left, and removes the folder. */
  remove(): void;
}

/** @throws CodedError VERIFY_FAILED where it does not start */
export async function startScratchSystem(config: Config): Promise<ScratchSystem> {
  const dataDir = mkdtempSync(join(tmpdir(), 'qwen-supervisor-verify-'));
  // Models that were added, and CUDA's libraries, are there, too.
  for (const name of [MODELS_FOLDER, RUNTIME_FOLDER]) {
    const shared = join(config['data-dir'], name);
    if (existsSync(shared)) symlinkSync(shared, join(dataDir, name));
  }
  const own: Partial<Config> = { ...config, port: 0, host: '127.0.0.1', 'data-dir': dataDir, ...OWN };
  const words = Object.entries(own).flatMap(([key, value]) => [`--${key}`, String(value)]);
  const program = [process.execPath, resolve(process.argv[1] as string), 'start', ...words];
  // It ends with us, however that happens, and hears no Ctrl+C that is meant for us.
  const [command = '', ...args] = [...deathSignalLauncher(), ...program];
  const supervisor = execa(command, args, {
    env: { ...ownSettings(process.env), NOTIFY_SOCKET: undefined, NO_COLOR: '1' },
    extendEnv: false,
    stdin: 'ignore',
    reject: false,
    all: true,
    buffer: false,
    detached: true,
    // A stop takes as long as a step does.
    forceKillAfterDelay: false,
  });
  const remove = () => {
    supervisor.kill('SIGKILL');
    waitUntilGone(dataDir, supervisor.pid);
    rmSync(dataDir, { recursive: true, force: true });
  };
  const endedBy = (signal: NodeJS.Signals) => process.exit(128 + constants.signals[signal]);
  process.once('exit', remove);
  for (const signal of SIGNALS) process.once(signal, endedBy);
  const last: string[] = [];
  const url = await new Promise<string>((listens, fails) => {
    createInterface({ input: supervisor.all }).on('line', (line) => {
      last.push(line);
      if (last.length > LAST_LINES) last.shift();
      const [, found] = /listening on (http:\/\/[^\s"]+)/.exec(line) ?? [];
      if (found) listens(found);
    });
    supervisor.then(({ exitCode }) =>
      fails(new CodedError('VERIFY_FAILED', `the supervisor ended with code ${exitCode}: ${last.join(' | ')}`)),
    );
  });
  return {
    url,
    dataDir,
    ready: () => ready(dataDir),
    async pidOf(name) {
      const { link } = await connect(dataDir);
      try {
        const { children } = await link.request('status', {});
        const pid = children.find((child) => child.name === name)?.pid ?? null;
        if (pid === null) throw new CodedError('VERIFY_FAILED', `${name} has no process`);
        return pid;
      } finally {
        link.close();
      }
    },
    async stop() {
      supervisor.kill('SIGTERM');
      const { exitCode, signal } = await supervisor;
      if (exitCode !== 0) throw new CodedError('VERIFY_FAILED', `it ended with ${signal ?? `code ${exitCode}`}`);
    },
    leftOvers: () => [
      ...findSurvivors(dataDir).map((pid) => `process ${pid}`),
      ...readdirSync(join(dataDir, TEMPORARY_FOLDER)).map((name) => `${TEMPORARY_FOLDER}/${name}`),
      ...['supervisor.json', 'jobs.db-wal'].filter((name) => existsSync(join(dataDir, name))),
    ],
    remove() {
      process.off('exit', remove);
      for (const signal of SIGNALS) process.off(signal, endedBy);
      remove();
    },
  };
}

/** Told, not asked again and again: the supervisor says when workers can draw, and when one never will. */
async function ready(dataDir: string): Promise<void> {
  let tell: () => void = () => {};
  const on = { event: () => tell(), missed: () => tell(), workerFailed: () => tell() };
  const { link } = await connect(dataDir, on);
  try {
    await link.request('subscribe', { since: null });
    for (;;) {
      const told = new Promise<void>((resolve) => {
        tell = resolve;
      });
      const { children } = await link.request('status', {});
      const workers = children.filter(({ name }) => name !== 'api');
      if (workers.every(({ state }) => isUp(state))) return;
      const failed = workers.find(({ state }) => state === 'failed');
      if (failed) throw new CodedError('VERIFY_FAILED', `the worker was given up: ${failed.reason}`);
      await told;
    }
  } finally {
    link.close();
  }
}

/** What the operator has set for another system is not for this one. */
function ownSettings(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith('QWEN_SUPERVISOR_')));
}

const GONE_LIMIT_MS = 5000;
const LOOK_AGAIN_MS = 20;

/**
 * Children end a moment after their supervisor; what they write until then would come back after it was removed. For
 * the end of this process, when nothing can be awaited any more.
 */
function waitUntilGone(dataDir: string, pid: number | undefined): void {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  // One that is dead has not been taken yet: nobody waits for it here.
  const lives = () => pid !== undefined && !(processState(pid) ?? 'dead').startsWith('dead');
  const isThere = () => lives() || findSurvivors(dataDir).length > 0;
  for (let waited = 0; isThere() && waited < GONE_LIMIT_MS; waited += LOOK_AGAIN_MS)
    Atomics.wait(cell, 0, 0, LOOK_AGAIN_MS);
}
