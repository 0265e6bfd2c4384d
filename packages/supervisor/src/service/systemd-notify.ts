/**
 * What a supervisor that systemd has started tells it, and what it is given by it. Reference: sd_notify(3),
 * sd_listen_fds(3).
 *
 * Node has no datagram sockets of the Unix family, so that the messages go through `systemd-notify`; the unit needs
 * `NotifyAccess=all`.
 */
import { isUp } from '@qwen-supervisor/protocol/status';
import { execa } from 'execa';
import { type Child, stateOf } from '../core/child.js';
import { type State, workersOf } from '../core/state.js';

/** The first descriptor that systemd passes. */
const FIRST_FD = 3;
/** While the start or the last job goes on, this much more time is asked for, this often. */
const EXTEND_SECONDS = 60;
const EXTEND_EVERY_MS = 20_000;
const TELL_LIMIT_MS = 5000;

/** What systemd has given to this process, taken out of the environment so that no child thinks it is meant. */
export interface Activation {
  /** Descriptors of a socket unit's sockets, which listen already; none without one. */
  listenFds: number[];
  notify: boolean;
  /** Longest silence that the unit's WatchdogSec allows; null without. */
  watchdogMs: number | null;
}

export function takeActivation(env: NodeJS.ProcessEnv): Activation {
  const count = Number(env.LISTEN_PID) === process.pid ? Number(env.LISTEN_FDS) : 0;
  const watched = env.WATCHDOG_PID === undefined || Number(env.WATCHDOG_PID) === process.pid;
  const activation = {
    listenFds: Array.from({ length: count }, (_, i) => FIRST_FD + i),
    notify: env.NOTIFY_SOCKET !== undefined,
    watchdogMs: watched && env.WATCHDOG_USEC !== undefined ? Number(env.WATCHDOG_USEC) / 1000 : null,
  };
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES', 'WATCHDOG_PID', 'WATCHDOG_USEC']) delete env[name];
  return activation;
}

/** Where the start stands, in systemd's words. */
export function describeToSystemd(state: State, readyWhen: 'api' | 'model'): { ready: boolean; status: string } {
  const workers = workersOf(state).map(({ child }) => child);
  const canDraw = workers.some((worker) => isUp(stateOf(worker)));
  const ready = isUp(stateOf(state.api)) && (readyWhen === 'api' || canDraw);
  const status = workers.map((worker) => `${nameIn(workers, worker)}${describeWorker(worker)}`).join('; ');
  return { ready, status };
}

/** Of several each is named. */
function nameIn(workers: Child[], { name }: Child): string {
  return workers.length === 1 ? '' : `${name}: `;
}

function describeWorker({ phase, load, reason }: Child): string {
  // A status line for every per cent would be a process for every per cent.
  return phase === 'loading' ? `loading the model, ${10 * Math.floor(10 * load.share)} %` : reason;
}

export class SystemdNotifier {
  readonly #env: NodeJS.ProcessEnv;
  readonly #onFault: (reason: string) => void;
  #told = { ready: false, status: '' };
  #stopping = false;
  /** What is to be told next; newer words take the place of older ones that were not told yet. */
  #waiting = new Map<string, string>();
  #telling: Promise<void> | null = null;
  readonly #extending: NodeJS.Timeout;

  /** `env` holds NOTIFY_SOCKET. */
  constructor(env: NodeJS.ProcessEnv, onFault: (reason: string) => void) {
    this.#env = { ...env };
    this.#onFault = onFault;
    this.#extending = setInterval(() => {
      if (!this.#told.ready || this.#stopping) this.#tell([`EXTEND_TIMEOUT_USEC=${EXTEND_SECONDS * 1e6}`]);
    }, EXTEND_EVERY_MS).unref();
  }

  /** Tells what has changed. */
  update(state: State, readyWhen: 'api' | 'model'): void {
    if (state.phase !== 'running' && !this.#stopping) {
      this.#stopping = true;
      const status = state.phase === 'finishing' ? 'stopping after the running job' : 'stopping';
      this.#tell(['STOPPING=1', `EXTEND_TIMEOUT_USEC=${EXTEND_SECONDS * 1e6}`, `STATUS=${status}`]);
    }
    if (this.#stopping) return;
    const now = describeToSystemd(state, readyWhen);
    const before = this.#told;
    const becameReady = now.ready && !before.ready;
    if (now.status === before.status && !becameReady) return;
    this.#told = { ready: before.ready || now.ready, status: now.status };
    this.#tell([
      ...(becameReady ? ['READY=1'] : []),
      ...(this.#told.ready ? [] : [`EXTEND_TIMEOUT_USEC=${EXTEND_SECONDS * 1e6}`]),
      `STATUS=${now.status}`,
    ]);
  }

  /** That settings are read anew, and that this is over. */
  async reloading<T>(reload: () => Promise<T>): Promise<T> {
    if (!this.#told.ready || this.#stopping) return reload();
    this.#tell(['RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`]);
    try {
      return await reload();
    } finally {
      // Words of before must not take the place of these.
      await this.#telling;
      if (!this.#stopping) this.#tell(['READY=1', `STATUS=${this.#told.status}`]);
    }
  }

  /** To be called from the loop that is watched: where it stands still, nothing is told. */
  alive(): void {
    void this.#send(['WATCHDOG=1']);
  }

  /** Resolves when everything is told. */
  async close(): Promise<void> {
    clearInterval(this.#extending);
    await this.#telling;
  }

  /** One message after the other, so that systemd hears them in order. */
  #tell(fields: string[]): void {
    for (const field of fields) this.#waiting.set(field.split('=')[0] as string, field);
    this.#telling ??= this.#tellWaiting();
  }

  async #tellWaiting(): Promise<void> {
    while (this.#waiting.size > 0) {
      const fields = [...this.#waiting.values()];
      this.#waiting = new Map();
      await this.#send(fields);
    }
    this.#telling = null;
  }

  async #send(fields: string[]): Promise<void> {
    const options = { env: this.#env, extendEnv: false, reject: false, timeout: TELL_LIMIT_MS } as const;
    const { failed, shortMessage } = await execa('systemd-notify', fields, options);
    if (failed) this.#onFault(shortMessage ?? 'systemd-notify failed');
  }
}
