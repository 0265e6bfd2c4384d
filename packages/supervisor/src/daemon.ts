/**
 * The shell around the supervisor's core: owns the clock, the processes, the sockets and the store. It turns what
 * happens into events, and carries out the effects that the core decides on.
 */
import type { ApiKey } from '@qwen-supervisor/protocol/api-keys';
import type { Config } from '@qwen-supervisor/protocol/config';
import { CodedError, type ErrorObject } from '@qwen-supervisor/protocol/errors';
import type { JobProgress } from '@qwen-supervisor/protocol/job';
import { type JobRequest, requestOf } from '@qwen-supervisor/protocol/job-request';
import type { ReloadReport } from '@qwen-supervisor/protocol/messages';
import type { ChildName, Crash, MachineReport, WorkerName } from '@qwen-supervisor/protocol/status';
import { changeConfig } from './config/config-change.js';
import { boundsOf, limitsOf } from './config/config-parts.js';
import { readKeysFile } from './config/keys-file.js';
import { ControlSocket } from './control/control-socket.js';
import { answer, type PeerLink, type Supervised } from './control/peer-methods.js';
import type { ChildEvent } from './core/child.js';
import type { Effect, Event } from './core/events.js';
import { progressTold } from './core/expected-times.js';
import { childOf, initialState, type Limits, nextDeadline, type State } from './core/state.js';
import { stateChanges } from './core/state-changes.js';
import { decide } from './core/supervisor.js';
import { measureDevice, probeDevice } from './devices/device-memory.js';
import { JobDesk } from './jobs/job-desk.js';
import type { Taker } from './jobs/job-store.js';
import { removePresence } from './machine/data-folder.js';
import { refuseUnlessOpen } from './machine/http-port.js';
import type { Parts } from './parts.js';
import type { PlannedModel } from './planned-model.js';
import { PLANNED_FROM } from './planned-models.js';
import { apiSettings, workerSettings } from './processes/child-settings.js';
import { type Exit, type Incarnation, Processes } from './processes/processes.js';
import { CrashLog } from './records/crash-log.js';
import { EventLog } from './records/event-log.js';
import { logChange } from './records/log-change.js';
import { Metrics } from './records/metrics.js';
import { reportOf, snapshotOf, statusOf, welcomeOf } from './system-answers.js';

/** `setTimeout` takes no longer time. */
const TIMER_MAX_MS = 2 ** 31 - 1;
/** From one look for what nobody needs any more to the next. */
const TIDY_MS = 3_600_000;

export interface RunningDaemon {
  /** Begins an orderly stop; `ended` resolves when it is done. */
  stop(reason: string): void;
  /** Kills all children now. */
  kill(): void;
  /** The error that ended the supervisor, or null after a planned stop. */
  ended: Promise<ErrorObject | null>;
}

export class Daemon implements RunningDaemon, Supervised {
  readonly ended: Promise<ErrorObject | null>;
  readonly jobs: JobDesk;
  readonly events: EventLog;
  readonly children: Supervised['children'];
  readonly ask: Supervised['ask'];
  readonly #parts: Parts;
  readonly #processes: Processes;
  readonly #crashes: CrashLog;
  readonly #metrics = new Metrics();
  readonly #control: ControlSocket;
  /** Events that came while another was being handled. */
  readonly #inbox: Event[] = [];
  #draining = false;
  #config: Config;
  #keys: ApiKey[];
  #limits: Limits;
  readonly #models: Parts['models'];
  #state: State;
  #links: Partial<Record<ChildName, PeerLink>> = {};
  /** Reloads, and looks at the model. */
  #acting: Promise<unknown> = Promise.resolve();
  /** Crashes whose last lines are still awaited. */
  readonly #recording = new Set<Promise<void>>();
  #timer: NodeJS.Timeout | undefined;
  #immediate: NodeJS.Immediate | undefined;
  #end: (error: ErrorObject | null) => void = () => {};

  constructor(parts: Parts) {
    const { httpPort, config, models, dataDir, socket, store, shared, others } = parts;
    const log = parts.log.logger;
    this.#parts = parts;
    this.events = new EventLog((event, isOurs) => this.#metrics.observe(event, isOurs));
    this.#config = config;
    this.#keys = parts.keys;
    this.#limits = limitsOf(config, models.planned(config));
    this.#models = models;
    this.#state = initialState(models.names);
    this.#crashes = new CrashLog(dataDir);
    this.#control = new ControlSocket(socket, { dataDir, url: httpPort.url, log }, (link) => answer(link, this));
    const socketPath = () => this.#control.path;
    this.#processes = new Processes({ socketPath, dataDir, log }, (child, exit) => this.#tellExit(child, exit));
    const { events } = this;
    this.jobs = new JobDesk({ dataDir, store, shared, others, log, events, bounds: boundsOf(config) }, this);
    this.children = {
      withToken: (token) => this.#processes.find(token),
      attach: (child, link) => {
        this.#links[child.name] = link;
        this.#processes.connected(child);
      },
      detach: (child) => this.#processes.disconnected(child),
    };
    this.ask = {
      welcome: () => welcomeOf(this.#parts, this, this.#config),
      status: () => statusOf(this.#parts, this, this.#config),
      snapshot: () => snapshotOf(this.#parts, this, this.#config, this.#crashes.newest),
      metrics: async () => this.#metrics.text(await statusOf(this.#parts, this, this.#config)),
      apiKeys: () => this.#keys,
      // One after the other: each is compared with what the one before has made.
      reload: () => {
        const reload = () => this.#inLine(() => this.#reload());
        return parts.systemd ? parts.systemd.reloading(reload) : reload();
      },
      stop: (reason) => this.stop(reason),
      drain: (name, isDrained) => others.drain(name, isDrained),
      othersDraw: () => others.workers > 0,
    };
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  async open(): Promise<void> {
    const { dataDir, log, httpPort, systemd, watchdogMs } = this.#parts;
    await this.#control.open();
    const { id: model } = this.#models.info;
    log.logger.info({ pid: process.pid, model, data: dataDir }, `listening on ${httpPort.url}`);
    for (const worker of this.#models.names)
      log.logger.info({ worker, ...this.#models.of(worker).device(this.#config) }, 'what computes pictures');
    log.logger.info(`the page is at ${httpPort.url}/app/`);
    this.jobs.recover();
    this.send({ type: 'start', atMs: this.nowMs() });
    this.send({ type: 'job-queued', atMs: this.nowMs() });
    setInterval(() => this.jobs.tidy(), TIDY_MS).unref();
    if (systemd && watchdogMs !== null) setInterval(() => systemd.alive(), watchdogMs / 3).unref();
  }

  nowMs(): number {
    return performance.now();
  }

  state(): State {
    return this.#state;
  }

  report(): MachineReport {
    return reportOf(this.#parts, this.#state, this.#config);
  }

  requireAllowed(request: JobRequest): void {
    this.#models.requireAllowed(request, this.#config, this.#state);
  }

  takerFor(worker: WorkerName): Taker {
    return this.#models.takerFor(worker, this.#config, this.#state);
  }

  stop(reason: string): void {
    this.#parts.log.logger.info(`stopping: ${reason}`);
    this.send({ type: 'stop', how: 'orderly', atMs: this.nowMs() });
    if (this.#state.phase === 'finishing') this.#parts.log.logger.info('the running job ends first');
  }

  kill(): void {
    for (const name of this.#models.names) this.#models.of(name).stopLooking();
    this.#processes.killAll();
    this.send({ type: 'stop', how: 'now', atMs: this.nowMs() });
  }

  onFault(peer: string | null, error: Error): void {
    const code = error instanceof CodedError ? error.code : 'INTERNAL';
    this.#parts.log.logger.error({ peer, code }, `connection closed: ${error.message}`);
  }

  /** One event after the other: what an effect brings about at once is decided when all effects are done. */
  send(event: Event): void {
    this.#inbox.push(event);
    if (this.#draining) return;
    this.#draining = true;
    try {
      for (let next = this.#inbox.shift(); next; next = this.#inbox.shift()) this.#handle(next);
    } finally {
      this.#draining = false;
    }
    this.#parts.systemd?.update(this.#state, this.#config['systemd-ready']);
    this.#setTimer();
  }

  #handle(event: Event): void {
    if (event.type === 'child' && event.event.type === 'beat') this.#processes.beat(event.name);
    const before = this.#state;
    const { state, effects } = decide(before, event, this.#limits);
    this.#state = state;
    for (const change of stateChanges(before, state)) {
      logChange(this.#parts.log.logger, change);
      this.events.publish(change.event);
      // What can be drawn is what those can draw that are not given up.
      if (change.event.type === 'child' && ['failed', 'starting'].includes(change.event.state))
        this.#links.api?.notify('welcome', welcomeOf(this.#parts, this, this.#config));
    }
    this.#models.hear(event, effects);
    for (const effect of effects) this.#perform(effect);
  }

  #tellChild(name: ChildName, incarnation: number, event: ChildEvent): void {
    this.send({ type: 'child', name, incarnation, atMs: this.nowMs(), event });
  }

  #setTimer(): void {
    clearTimeout(this.#timer);
    clearImmediate(this.#immediate);
    const dueMs = nextDeadline(this.#state);
    if (dueMs === null || this.#state.phase === 'ended') return;
    const delay = Math.min(Math.max(0, dueMs - this.nowMs()), TIMER_MAX_MS);
    // What has been sent by then is read first: it may be the sign of life that was missed.
    this.#timer = setTimeout(() => {
      this.#immediate = setImmediate(() => this.send({ type: 'tick', atMs: this.nowMs() }));
    }, delay);
  }

  #perform(effect: Effect): void {
    switch (effect.type) {
      case 'spawn':
        return this.#spawn(effect.name, effect.incarnation);
      case 'ask-stop':
        return this.#links[effect.name]?.notify('shutdown', { forGood: effect.forGood });
      case 'kill':
        if (effect.name !== 'api') this.#models.of(effect.name).stopLooking();
        if (effect.noteThreads) this.#processes.noteThreads(effect.name);
        return this.#processes.kill(effect.name, effect.tree);
      case 'measure-device':
        return void measureDevice(effect.pid, this.#models.cardToMeasure(effect.name)).then((memory) => {
          if (memory.heldBytes > 0) this.#tellChild(effect.name, effect.incarnation, { type: 'holds', memory });
        });
      case 'probe-memory':
        return void probeDevice(this.#models.cardToWaitFor(effect.name)).then((found) =>
          this.#tellChild(effect.name, effect.incarnation, { type: 'memory', ...found }),
        );
      case 'note-impossible':
        return this.#parts.log.logger.warn(effect, `${effect.name} was told ${effect.event} while ${effect.phase}`);
      case 'announce-failure':
        // Others may draw it.
        return this.ask.othersDraw() ? undefined : this.events.announceFailure(effect.reason);
      case 'claim':
        return this.jobs.claim(effect.worker);
      case 'dispatch': {
        const { worker, job, attempt } = effect;
        return this.#links[worker]?.notify('run', { jobId: job.id, attempt, request: requestOf(job), step: job.step });
      }
      case 'cancel-run': {
        const { worker, jobId, attempt, keep } = effect;
        return this.#links[worker]?.notify('cancel', { jobId, attempt, keep });
      }
      case 'begin': {
        const { worker, jobId, attempt, start } = effect;
        return this.jobs.begin(jobId, attempt, start, this.#models.of(worker).device(this.#config).reason);
      }
      case 'tell-step':
      case 'tell-progress':
      case 'tell-decoding':
        return this.#tell(progressTold(this.#state, effect, this.nowMs()));
      case 'release':
        return this.jobs.release(effect.jobId, effect.attempt, effect.reason, effect.death, effect.step);
      case 'finish':
        return this.jobs.finish(effect.jobId, effect.attempt, effect.step, effect.outcome);
      case 'record-crash':
        return this.#recordCrash(effect.crash);
      case 'exit':
        return void this.#close(effect.error);
    }
  }

  /** Who listens, and the other machines. */
  #tell(progress: JobProgress | null): void {
    if (!progress) return;
    if (progress.type === 'step') this.#parts.shared?.advanced(progress.jobId);
    this.events.publish(progress);
    this.#parts.others.tell(progress);
  }

  #spawn(name: ChildName, incarnation: number): void {
    const model = name === 'api' ? null : this.#models.of(name);
    const isPlanned = model === null || (!model.isOld && model.info !== null);
    if (this.#control.isThere() && isPlanned) return this.#spawnNow(name, incarnation);
    const fail = () => this.#tellExit({ name, number: incarnation }, { code: null, signal: null, oomKilled: false });
    const isWanted = () => {
      const child = childOf(this.#state, name);
      return child.phase === 'starting' && child.incarnation === incarnation;
    };
    // If it was stopped meanwhile, an end is waited for.
    const spawn = () => (isWanted() ? this.#spawnNow(name, incarnation) : fail());
    const ready = async () => {
      if (!this.#control.isThere()) await this.#control.openAnew();
      if (model?.isOld) await this.#planAgain(model.name, isWanted);
      // A reload may have made another of it.
      if (model) this.#models.of(model.name).requirePlan();
    };
    void ready().then(spawn, (error: Error) => {
      this.#parts.log.logger.error({ child: name }, `cannot be started: ${error.message}`);
      if (error instanceof CodedError)
        this.#tellChild(name, incarnation, { type: 'fatal', error: error.toObject(), permanent: false });
      fail();
    });
  }

  async #planAgain(name: WorkerName, isWanted: () => boolean): Promise<void> {
    const { logger } = this.#parts.log;
    // In line with reloads, and with the looks of other workers: what was asked for last is in force.
    await this.#inLine(async () => {
      if (isWanted()) await this.#models.lookAgain(name, this.#config, this.#state, logger);
    });
    this.#limits = limitsOf(this.#config, this.#models.planned(this.#config));
    this.#links.api?.notify('welcome', welcomeOf(this.#parts, this, this.#config));
  }

  #inLine<T>(act: () => Promise<T>): Promise<T> {
    const acting = this.#acting.then(act, act);
    this.#acting = acting;
    return acting;
  }

  #spawnNow(name: ChildName, incarnation: number): void {
    const { httpPort } = this.#parts;
    const child = { name, number: incarnation };
    const pid =
      name === 'api'
        ? this.#processes.spawn(child, apiSettings(this.#config, httpPort), httpPort.fds)
        : this.#spawnWorker(child, this.#models.of(name));
    if (pid !== null) this.#tellChild(name, incarnation, { type: 'spawned', pid });
  }

  #spawnWorker(child: Incarnation, model: PlannedModel): number | null {
    const settings = workerSettings(this.#config, this.#parts.dataDir, model, this.#models.onProcessor(this.#config));
    return this.#processes.spawn(child, settings, [], model.requirePlan().candidate.env);
  }

  /** From here on nothing more is heard of the process. */
  #tellExit({ name, number }: Incarnation, exit: Exit): void {
    this.#links[name]?.close();
    delete this.#links[name];
    const [at, random] = [new Date().toISOString(), Math.random()];
    this.#tellChild(name, number, { type: 'exited', ...exit, at, random });
  }

  #recordCrash(crash: Omit<Crash, 'tail' | 'threads'>): void {
    const recorded = this.#processes.lastWords(crash.child).then((words) => {
      const whole: Crash = { ...crash, ...words };
      this.#crashes.add(whole);
      this.events.publish({ type: 'crash', crash: whole });
      this.#recording.delete(recorded);
    });
    this.#recording.add(recorded);
  }

  /** @throws CodedError CONFIG_*, KEYS_FILE_INVALID, HOST_REFUSED, MODEL_*: then nothing has changed */
  async #reload(): Promise<ReloadReport> {
    const { readConfig, httpPort, log } = this.#parts;
    const read = readConfig();
    const keys = readKeysFile(read['keys-file']);
    const { config, report } = changeConfig(this.#config, read);
    refuseUnlessOpen(httpPort.host, keys.length > 0 || config.keyless === 'anywhere');
    if (PLANNED_FROM.some((key) => report.applied.includes(key))) await this.#models.look(config, this.#state);
    if (JSON.stringify(keys) !== JSON.stringify(this.#keys) && !report.restarted.includes('api'))
      report.restarted.push('api');
    this.#keys = keys;
    this.#config = config;
    this.#limits = limitsOf(config, this.#models.planned(config));
    this.jobs.bounds = boundsOf(config);
    log.logger.level = config['log-level'];
    this.#links.api?.notify('welcome', welcomeOf(this.#parts, this, this.#config));
    log.logger.info(report, 'configuration read again');
    const restarted = report.restarted.flatMap((role) => (role === 'api' ? [role] : this.#models.names));
    for (const name of restarted)
      this.send({ type: 'restart', name, reason: 'its configuration has changed', atMs: this.nowMs() });
    this.jobs.gallery.expire();
    return report;
  }

  async #close(error: ErrorObject | null): Promise<void> {
    clearTimeout(this.#timer);
    clearImmediate(this.#immediate);
    const { log, httpPort, dataDir, systemd } = this.#parts;
    await this.jobs.close().catch((cause: Error) => {
      log.logger.error(`the job database was not closed: ${cause.message}`);
    });
    await Promise.all(this.#recording);
    this.#control.close();
    httpPort.close();
    this.#crashes.close();
    removePresence(dataDir);
    log.logger.info('stopped');
    await systemd?.close();
    await log.flush();
    this.#end(error);
  }
}
