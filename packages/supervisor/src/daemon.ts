/**
 * The shell around the supervisor's core: owns the clock, the processes, the sockets and the store. It turns what happens
 * into events, and carries out the effects that the core decides on.
 */
import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import { type IpcServer, listenIpc } from '@qwen-supervisor/ipc/listen';
import { type Checkpoint, openCheckpoint } from '@qwen-supervisor/model/checkpoint';
import { describeModel } from '@qwen-supervisor/model/descriptions';
import { buildGraphs } from '@qwen-supervisor/model/graphs';
import { CONFIG_KEYS, type Config, type ConfigKey } from '@qwen-supervisor/protocol/config';
import type { ErrorObject } from '@qwen-supervisor/protocol/errors';
import { type Job, requestOf } from '@qwen-supervisor/protocol/job';
import type {
  ClientMethods,
  ReloadReport,
  SupervisorMethods,
  Welcome,
  WorkerMethods,
  WorkerReports,
} from '@qwen-supervisor/protocol/messages';
import type { ChildName, Crash, SystemStatus } from '@qwen-supervisor/protocol/status';
import type { Logger } from 'pino';
import type { Child, ChildEvent } from './child.js';
import { Children, type Exit, type Incarnation } from './children.js';
import { answer, type PeerLink, type Supervised } from './connection.js';
import { CrashLog } from './crash-log.js';
import { prepareSocket, removePresence, writePresence } from './data-folder.js';
import { DeviceMemory } from './device-memory.js';
import { EventLog } from './event-log.js';
import { secondsUntilClaim } from './expected-times.js';
import { JobDesk } from './job-desk.js';
import type { JobStore } from './job-store.js';
import { boundsOf, limitsOf } from './limits.js';
import type { Listener } from './listener.js';
import { INHERITED_FD } from './spawn-child.js';
import { logChange, stateChanges } from './state-changes.js';
import { type Effect, type Event, initialState, type Limits, nextDeadline, type State, step } from './supervisor.js';
import { describeSystem } from './system-status.js';
import type { SystemdNotifier } from './systemd.js';
import { VERSION } from './version.js';

/** `setTimeout` takes no longer time. */
const TIMER_MAX_MS = 2 ** 31 - 1;
/** A timer that is late by more tells that this process stood still, and nothing could reach it. */
const LATE_MS = 1000;
/** Keys that are bound to what is open, or that all children were started with: they need a new start. */
const FIXED: ConfigKey[] = ['host', 'port', 'data-dir', 'beat-limit-seconds'];
/** Ends of which only the state of the threads can tell more. */
const HANGS = new Set<Child['stopCause']>(['hung', 'stalled']);
/** From one look for finished jobs that are too old to the next. */
const EXPIRE_MS = 3_600_000;
/** Beats of a living child in the time after which a silent one is taken for dead. */
const BEATS_PER_LIMIT = 3;
/** Keys that the worker is started with. */
const OF_WORKER: ConfigKey[] = ['model', 'checkpoint-steps'];

export interface Daemon {
  /** Begins an orderly stop; `ended` resolves when it is done. */
  stop(reason: string): void;
  /** Kills all children now. */
  kill(): void;
  /** The error that ended the supervisor, or null after a planned stop. */
  ended: Promise<ErrorObject | null>;
}

/** Opens a checkpoint and sees that its graphs can be built. @throws CodedError MODEL_* */
export function openWhole(folder: string): Checkpoint {
  const checkpoint = openCheckpoint(folder);
  buildGraphs(checkpoint);
  return checkpoint;
}

/** What a supervisor is made of, opened and checked. */
export interface Parts {
  config: Config;
  readConfig: () => Config;
  checkpoint: Checkpoint;
  dataDir: string;
  store: JobStore;
  listener: Listener;
  log: Logger;
  socket: string;
  systemd: SystemdNotifier | null;
  watchdogMs: number | null;
}

export class Supervisor implements Daemon, Supervised {
  readonly url: string;
  readonly ended: Promise<ErrorObject | null>;
  readonly jobs: JobDesk;
  readonly events = new EventLog();
  readonly #parts: Parts;
  readonly #children: Children;
  readonly #crashes: CrashLog;
  readonly #deviceMemory = new DeviceMemory();
  #config: Config;
  #limits: Limits;
  #model: ReturnType<typeof describeModel>;
  #state: State = initialState();
  #links: Partial<Record<ChildName, PeerLink>> = {};
  /** The last one is the one that is found; an earlier one keeps its connections. */
  readonly #ipc: IpcServer[] = [];
  #listening: Promise<void> | null = null;
  #timer: NodeJS.Timeout | undefined;
  #immediate: NodeJS.Immediate | undefined;
  #end: (error: ErrorObject | null) => void = () => {};

  constructor(parts: Parts) {
    const { listener, config, checkpoint, log, dataDir, socket, store } = parts;
    this.#parts = parts;
    this.url = listener.url;
    this.#config = config;
    this.#limits = limitsOf(config);
    this.#model = describeModel(checkpoint.architecture, basename(checkpoint.folder));
    this.#crashes = new CrashLog(dataDir);
    this.#children = new Children({ socket, dataDir, log }, (child, exit) => this.#tellExit(child, exit));
    this.jobs = new JobDesk(
      { dataDir, store, log, events: this.events, bounds: boundsOf(config) },
      {
        current: () => this.#state.current,
        secondsUntilClaim: () => secondsUntilClaim(this.#state, this.nowMs()),
        onQueued: () => this.handle({ type: 'job-queued', atMs: this.nowMs() }),
        onClaimed: (job) => this.handle({ type: 'claimed', atMs: this.nowMs(), job }),
        onCancelRequest: (jobId) => this.handle({ type: 'cancel-running', atMs: this.nowMs(), jobId }),
        onStoreFailure: (error) => {
          log.error({ code: error.code }, error.message);
          this.handle({ type: 'store-failed', atMs: this.nowMs(), error: error.toObject() });
        },
      },
    );
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  async open(): Promise<void> {
    const { dataDir, log } = this.#parts;
    await this.#listen();
    log.info({ pid: process.pid, model: this.#model.id, data: dataDir }, `listening on ${this.url}`);
    this.jobs.recover();
    this.handle({ type: 'start', atMs: this.nowMs() });
    this.handle({ type: 'job-queued', atMs: this.nowMs() });
    setInterval(() => this.jobs.expire(), EXPIRE_MS).unref();
    const { systemd, watchdogMs } = this.#parts;
    if (systemd && watchdogMs !== null) setInterval(() => systemd.alive(), watchdogMs / 3).unref();
  }

  async #listen(): Promise<void> {
    const { dataDir, log } = this.#parts;
    const { socket } = this.#children;
    this.#ipc.push(
      await listenIpc<ClientMethods & WorkerMethods, SupervisorMethods & WorkerReports>(socket, (link) =>
        answer(link, this),
      ),
    );
    try {
      writePresence(dataDir, { pid: process.pid, socket, url: this.url });
    } catch (error) {
      // A full disk: commands do not find us, everybody else does.
      log.error(`where this supervisor is reached could not be written: ${(error as Error).message}`);
    }
  }

  nowMs(): number {
    return performance.now();
  }

  state(): State {
    return this.#state;
  }

  childOf(token: string): Incarnation | null {
    return this.#children.find(token);
  }

  attach(child: Incarnation, link: PeerLink): void {
    this.#links[child.name] = link;
    this.#children.connected(child);
  }

  detach(child: Incarnation): void {
    this.#children.disconnected(child);
  }

  fault(peer: string | null, error: Error): void {
    this.#parts.log.error({ peer }, `connection closed: ${error.message}`);
  }

  stop(reason: string): void {
    const finish = this.#config['on-stop'] === 'finish' && !this.#state.finishing && !this.#state.stopping;
    this.#parts.log.info(`stopping: ${reason}${finish && this.#state.current ? ', after the running job' : ''}`);
    this.handle({ type: 'stop', atMs: this.nowMs(), finish });
  }

  kill(): void {
    this.#children.killAll();
    this.handle({ type: 'stop', atMs: this.nowMs(), finish: false });
  }

  restart(name: ChildName, reason: string): void {
    this.handle({ type: 'restart', atMs: this.nowMs(), name, reason });
  }

  /** @throws CodedError CONFIG_*, MODEL_*: then nothing has changed */
  reload(): ReloadReport {
    const next = this.#parts.readConfig();
    const changed = CONFIG_KEYS.filter((key) => next[key] !== this.#config[key]);
    const ignored = changed.filter((key) => FIXED.includes(key));
    const applied = changed.filter((key) => !FIXED.includes(key));
    const { host, port, 'data-dir': dataDir, 'beat-limit-seconds': beatLimit } = this.#config;
    if (applied.includes('model')) {
      const { architecture, folder } = openWhole(next.model);
      this.#model = describeModel(architecture, basename(folder));
    }
    this.#config = { ...next, host, port, 'data-dir': dataDir, 'beat-limit-seconds': beatLimit };
    this.#limits = limitsOf(this.#config);
    this.jobs.bounds = boundsOf(this.#config);
    this.#parts.log.level = this.#config['log-level'];
    this.#links.api?.notify('welcome', this.welcome());
    const restarted: ChildName[] = applied.some((key) => OF_WORKER.includes(key)) ? ['inference'] : [];
    this.#parts.log.info({ applied, ignored, restarted }, 'configuration read again');
    for (const name of restarted) this.restart(name, 'its configuration has changed');
    this.jobs.expire();
    return { applied, restarted, ignored };
  }

  handle(event: Event): void {
    const before = this.#state;
    const { state, effects } = step(before, event, this.#limits);
    this.#state = state;
    for (const change of stateChanges(before, state)) {
      logChange(this.#parts.log, change);
      this.events.publish(change.event);
    }
    const worker = state.children.inference;
    if (worker.state !== before.children.inference.state) {
      if (worker.state === 'failed') this.events.announceFailure(worker.reason);
      const loaded = worker.state === 'ready' && before.children.inference.state === 'loading';
      if (loaded && worker.pid !== null) void this.#measureDevice(worker.pid, worker.incarnation);
    }
    for (const effect of effects) this.#perform(effect);
    this.#parts.systemd?.update(this.#state, this.#config['systemd-ready']);
    this.#setTimer();
  }

  handleChild(name: ChildName, incarnation: number, event: ChildEvent): void {
    if (event.type === 'beat') this.#children.beat(name);
    this.handle({ type: 'child', name, incarnation, atMs: this.nowMs(), event });
  }

  #setTimer(): void {
    clearTimeout(this.#timer);
    clearImmediate(this.#immediate);
    const dueMs = nextDeadline(this.#state);
    if (dueMs === null) return;
    const delay = Math.min(Math.max(0, dueMs - this.nowMs()), TIMER_MAX_MS);
    const fire = () => {
      const atMs = this.nowMs();
      if (atMs - dueMs > LATE_MS) this.handle({ type: 'paused', atMs, ms: atMs - dueMs + LATE_MS });
      else this.handle({ type: 'tick', atMs });
    };
    // What has been sent by then is read first: it may be the sign of life that was missed.
    this.#timer = setTimeout(() => {
      this.#immediate = setImmediate(fire);
    }, delay);
  }

  #perform(effect: Effect): void {
    switch (effect.type) {
      case 'spawn':
        return this.#spawn(effect.name, effect.incarnation);
      case 'ask-stop':
        return this.#links[effect.name]?.notify('shutdown', { forGood: this.#state.stopping });
      case 'kill':
        if (HANGS.has(this.#state.children[effect.name].stopCause)) this.#children.noteThreads(effect.name);
        return this.#children.kill(effect.name, effect.tree);
      case 'probe-memory':
        return void this.#probeMemory(effect.name);
      case 'claim':
        return this.jobs.claim();
      case 'dispatch':
        return this.#dispatch(effect.job, effect.attempt);
      case 'cancel-run':
        return this.#links.inference?.notify('cancel', { jobId: effect.jobId, attempt: effect.attempt });
      case 'begin':
        return this.jobs.begin(effect.jobId, effect.attempt, effect.start);
      case 'release':
        return this.jobs.release(effect.jobId, effect.reason, effect.death, effect.step);
      case 'finish':
        return this.jobs.finish(effect.jobId, effect.attempt, effect.step, effect.outcome);
      case 'record-crash':
        return void this.#recordCrash(effect.crash);
      case 'exit':
        return void this.#close(effect.error);
    }
  }

  #spawn(name: ChildName, incarnation: number): void {
    // A folder for sockets that a logout has removed would keep every child out for ever.
    if (existsSync(this.#children.socket)) return this.#spawnNow(name, incarnation);
    this.#listening ??= this.#listenAnew();
    void this.#listening.then(
      () => this.#spawnNow(name, incarnation),
      (error: Error) => {
        this.#parts.log.error(`no child can be started: ${error.message}`);
        this.#tellExit({ name, number: incarnation }, { code: null, signal: null, oomKilled: false });
      },
    );
  }

  #tellExit({ name, number }: Incarnation, exit: Exit): void {
    this.handleChild(name, number, { type: 'exited', ...exit, at: new Date().toISOString(), random: Math.random() });
  }

  async #listenAnew(): Promise<void> {
    try {
      this.#parts.log.warn('the control socket is gone, listening anew');
      // Its folder may be gone, too, and with it the place that was chosen.
      this.#children.socket = prepareSocket(this.#parts.dataDir, process.env);
      await this.#listen();
    } finally {
      this.#listening = null;
    }
  }

  #spawnNow(name: ChildName, incarnation: number): void {
    const { listener, dataDir } = this.#parts;
    const { model, 'checkpoint-steps': checkpointSteps } = this.#config;
    const child = { name, number: incarnation };
    const beatMs = this.#limits[name].beatLimitMs / BEATS_PER_LIMIT;
    const { host, port, fd } = listener;
    const pid =
      name === 'api'
        ? this.#children.spawn(child, { listenFd: INHERITED_FD, host, port, beatMs }, fd)
        : this.#children.spawn(child, { modelFolder: model, dataDir, checkpointSteps, beatMs }, null);
    if (pid !== null) this.handleChild(name, incarnation, { type: 'spawned', pid });
  }

  #dispatch(job: Job, attempt: number): void {
    this.#links.inference?.notify('run', { jobId: job.id, attempt, request: requestOf(job), step: job.step });
  }

  async #recordCrash(crash: Omit<Crash, 'tail'>): Promise<void> {
    const whole: Crash = { ...crash, tail: await this.#children.lastLines(crash.child) };
    this.#crashes.add(whole);
    this.events.publish({ type: 'crash', crash: whole });
  }

  async #measureDevice(pid: number, incarnation: number): Promise<void> {
    const bytes = await this.#deviceMemory.measure(pid);
    if (bytes > 0) this.handleChild('inference', incarnation, { type: 'holds', bytes });
  }

  async #probeMemory(name: ChildName): Promise<void> {
    const verdict = await this.#deviceMemory.probe();
    this.handleChild(name, this.#state.children[name].incarnation, { type: 'memory', ...verdict });
  }

  welcome(): Welcome {
    return {
      version: VERSION,
      defaults: this.#model.defaults,
      limits: { maxSteps: this.#config['max-steps'], maxPixels: this.#config['max-pixels'] },
      dataDir: this.#parts.dataDir,
      modelId: this.#model.id,
      url: this.url,
    };
  }

  async status(): Promise<SystemStatus> {
    const identity = { pid: process.pid, version: VERSION, uptimeSeconds: process.uptime(), url: this.url };
    const model = { id: this.#model.id, folder: this.#config.model };
    const queue = { ...(await this.jobs.counts()), problem: this.jobs.problem };
    return describeSystem(this.#state, identity, model, queue, this.nowMs());
  }

  async #close(error: ErrorObject | null): Promise<void> {
    clearTimeout(this.#timer);
    clearImmediate(this.#immediate);
    const { log, listener, dataDir, systemd } = this.#parts;
    await this.jobs.close().catch((cause: Error) => log.error(`the job database was not closed: ${cause.message}`));
    for (const server of this.#ipc) server.close();
    listener.close();
    this.#crashes.close();
    removePresence(dataDir);
    log.info('stopped');
    await systemd?.close();
    this.#end(error);
  }
}
