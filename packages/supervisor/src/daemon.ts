/**
 * The shell around the supervisor's core: owns the clock, the processes, the sockets and the store. It turns what happens
 * into events, and carries out the effects that the core decides on.
 */
import { basename } from 'node:path';
import { type Checkpoint, openCheckpoint } from '@qwen-supervisor/model/checkpoint';
import { describeModel } from '@qwen-supervisor/model/descriptions';
import { buildGraphs } from '@qwen-supervisor/model/graphs';
import type { ApiKey } from '@qwen-supervisor/protocol/api-keys';
import type { Config } from '@qwen-supervisor/protocol/config';
import type { ErrorObject } from '@qwen-supervisor/protocol/errors';
import type { Job } from '@qwen-supervisor/protocol/job';
import { requestOf } from '@qwen-supervisor/protocol/job-request';
import type { ModelInfo, ReloadReport, Snapshot, Welcome } from '@qwen-supervisor/protocol/messages';
import type { ChildName, Crash, SystemStatus } from '@qwen-supervisor/protocol/status';
import type { Logger } from 'pino';
import { changeConfig } from './config/config-change.js';
import { accessOf, boundsOf, limitsOf } from './config/config-parts.js';
import { readKeysFile } from './config/keys-file.js';
import { ControlSocket } from './control/control-socket.js';
import { answer, type PeerLink, type Supervised } from './control/peer-methods.js';
import type { Child, ChildEvent } from './core/child.js';
import { queuedEta, runningEta, secondsUntilClaim } from './core/expected-times.js';
import { stateChanges } from './core/state-changes.js';
import {
  type Effect,
  type Event,
  initialState,
  type Limits,
  nextDeadline,
  type State,
  step,
} from './core/supervisor.js';
import { describeSystem } from './core/system-status.js';
import { JobDesk } from './jobs/job-desk.js';
import type { JobStore } from './jobs/job-store.js';
import { removePresence } from './machine/data-folder.js';
import { type Listener, refuseUnlessOpen } from './machine/http-port.js';
import type { SystemdNotifier } from './machine/systemd.js';
import { DeviceMemory } from './processes/device-memory.js';
import { Children, type Exit, type Incarnation } from './processes/processes.js';
import { INHERITED_FD } from './processes/spawn-child.js';
import { CrashLog, readCrashes } from './records/crash-log.js';
import { EventLog } from './records/event-log.js';
import { logChange } from './records/log-change.js';
import { Metrics } from './records/metrics.js';
import { VERSION } from './version.js';

/** `setTimeout` takes no longer time. */
const TIMER_MAX_MS = 2 ** 31 - 1;
/** A timer that is late by more tells that this process stood still, and nothing could reach it. */
const LATE_MS = 1000;
/** Ends of which only the state of the threads can tell more. */
const HANGS = new Set<Child['stopCause']>(['hung', 'stalled']);
/** From one look for what nobody needs any more to the next. */
const TIDY_MS = 3_600_000;
/** Beats of a living child in the time after which a silent one is taken for dead. */
const BEATS_PER_LIMIT = 3;
/** Jobs and crashes in a snapshot. */
const SNAPSHOT_JOBS = 50;
const SNAPSHOT_CRASHES = 10;

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
  keys: ApiKey[];
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
  readonly #metrics = new Metrics();
  #config: Config;
  #keys: ApiKey[];
  #limits: Limits;
  #model: ModelInfo;
  #state: State = initialState();
  #links: Partial<Record<ChildName, PeerLink>> = {};
  readonly #control: ControlSocket;
  #timer: NodeJS.Timeout | undefined;
  #immediate: NodeJS.Immediate | undefined;
  #end: (error: ErrorObject | null) => void = () => {};

  constructor(parts: Parts) {
    const { listener, config, checkpoint, log, dataDir, socket, store } = parts;
    this.#parts = parts;
    this.url = listener.url;
    this.#config = config;
    this.#keys = parts.keys;
    this.#limits = limitsOf(config);
    this.#model = describeModel(checkpoint.architecture, basename(checkpoint.folder));
    this.#crashes = new CrashLog(dataDir);
    this.#control = new ControlSocket(socket, { dataDir, url: this.url, log }, (link) => answer(link, this));
    const socketPath = () => this.#control.path;
    this.#children = new Children({ socketPath, dataDir, log }, (child, exit) => this.#tellExit(child, exit));
    this.jobs = new JobDesk(
      { dataDir, store, log, events: this.events, bounds: boundsOf(config) },
      {
        current: () => this.#state.current,
        secondsUntilClaim: () => secondsUntilClaim(this.#state, this.nowMs()),
        runningEta: () => runningEta(this.#state, this.nowMs()),
        queuedEta: (job) => queuedEta(this.#state, this.nowMs(), job),
        onQueued: () => this.handle({ type: 'job-queued', atMs: this.nowMs() }),
        onClaimed: (job) => this.handle({ type: 'claimed', atMs: this.nowMs(), job }),
        onCancelRequest: (jobId, keep) => this.handle({ type: 'cancel-running', atMs: this.nowMs(), jobId, keep }),
        onStoreFailure: (error) => {
          log.error({ code: error.code }, error.message);
          this.handle({ type: 'store-failed', atMs: this.nowMs(), error: error.toObject() });
        },
      },
    );
    this.events.subscribe(this.#metrics, null);
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  async open(): Promise<void> {
    const { dataDir, log } = this.#parts;
    await this.#control.open();
    log.info({ pid: process.pid, model: this.#model.id, data: dataDir }, `listening on ${this.url}`);
    this.jobs.recover();
    this.handle({ type: 'start', atMs: this.nowMs() });
    this.handle({ type: 'job-queued', atMs: this.nowMs() });
    setInterval(() => this.jobs.tidy(), TIDY_MS).unref();
    const { systemd, watchdogMs } = this.#parts;
    if (systemd && watchdogMs !== null) setInterval(() => systemd.alive(), watchdogMs / 3).unref();
  }

  apiKeys(): ApiKey[] {
    return this.#keys;
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

  /** @throws CodedError CONFIG_*, KEYS_FILE_INVALID, HOST_REFUSED, MODEL_*: then nothing has changed */
  reload(): ReloadReport {
    const read = this.#parts.readConfig();
    const keys = readKeysFile(read['keys-file']);
    const { config, report } = changeConfig(this.#config, read);
    refuseUnlessOpen(this.#parts.listener.host, keys.length > 0 || config.keyless === 'anywhere');
    if (report.applied.includes('model')) {
      const { architecture, folder } = openWhole(config.model);
      this.#model = describeModel(architecture, basename(folder));
    }
    if (JSON.stringify(keys) !== JSON.stringify(this.#keys) && !report.restarted.includes('api'))
      report.restarted.push('api');
    this.#keys = keys;
    this.#config = config;
    this.#limits = limitsOf(config);
    this.jobs.bounds = boundsOf(config);
    this.#parts.log.level = config['log-level'];
    this.#links.api?.notify('welcome', this.welcome());
    this.#parts.log.info(report, 'configuration read again');
    for (const name of report.restarted) this.restart(name, 'its configuration has changed');
    this.jobs.expire();
    return report;
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
        return this.#links.inference?.notify('cancel', {
          jobId: effect.jobId,
          attempt: effect.attempt,
          keep: effect.keep,
        });
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
    if (this.#control.isThere()) return this.#spawnNow(name, incarnation);
    void this.#control.openAnew().then(
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

  #spawnNow(name: ChildName, incarnation: number): void {
    const { listener, dataDir } = this.#parts;
    const { model, 'checkpoint-steps': checkpointSteps, 'picture-metadata': metadata } = this.#config;
    const nameInPictures = metadata === 'embed' ? this.#model.id : null;
    const child = { name, number: incarnation };
    const beatMs = this.#limits[name].beatLimitMs / BEATS_PER_LIMIT;
    const { host, port, fd } = listener;
    const pid =
      name === 'api'
        ? this.#children.spawn(
            child,
            { listenFd: INHERITED_FD, host, port, beatMs, access: accessOf(this.#config) },
            fd,
          )
        : this.#children.spawn(child, { modelFolder: model, dataDir, checkpointSteps, nameInPictures, beatMs }, null);
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
      run: this.events.run,
      model: this.#model,
      limits: { maxSteps: this.#config['max-steps'], maxPixels: this.#config['max-pixels'] },
      dataDir: this.#parts.dataDir,
      url: this.url,
    };
  }

  async status(): Promise<SystemStatus> {
    const identity = { pid: process.pid, version: VERSION, uptimeSeconds: process.uptime(), url: this.url };
    const model = { id: this.#model.id, folder: this.#config.model };
    const queue = { ...(await this.jobs.counts()), problem: this.jobs.problem };
    return describeSystem(this.#state, identity, model, queue, this.nowMs());
  }

  async snapshot(): Promise<Snapshot> {
    // Before everything else: what happens meanwhile comes as an event, too.
    const { lastSeq } = this.events;
    const status = await this.status();
    const running = status.queue.current === null ? null : await this.jobs.get(status.queue.current);
    const queue = await this.jobs.waiting(SNAPSHOT_JOBS);
    const crashes = readCrashes(this.#parts.dataDir, SNAPSHOT_CRASHES).reverse();
    return { lastSeq, status, running, preview: this.jobs.preview(), queue, crashes };
  }

  async metrics(): Promise<string> {
    return this.#metrics.text(await this.status());
  }

  async #close(error: ErrorObject | null): Promise<void> {
    clearTimeout(this.#timer);
    clearImmediate(this.#immediate);
    const { log, listener, dataDir, systemd } = this.#parts;
    await this.jobs.close().catch((cause: Error) => log.error(`the job database was not closed: ${cause.message}`));
    this.#control.close();
    listener.close();
    this.#crashes.close();
    removePresence(dataDir);
    log.info('stopped');
    await systemd?.close();
    this.#end(error);
  }
}
