/**
 * The shell around the supervisor's core: owns the clock, the processes, the sockets and the store. It turns what happens
 * into events, and carries out the effects that the core decides on.
 */
import { randomBytes } from 'node:crypto';
import { basename } from 'node:path';
import type { Handlers, Link } from '@qwen-supervisor/ipc/link';
import { type IpcServer, listenIpc } from '@qwen-supervisor/ipc/listen';
import { type Checkpoint, openCheckpoint } from '@qwen-supervisor/model/checkpoint';
import { describeModel } from '@qwen-supervisor/model/descriptions';
import { buildGraphs } from '@qwen-supervisor/model/graphs';
import type { Config } from '@qwen-supervisor/protocol/config';
import { CodedError, type ErrorObject, workerGivenUp } from '@qwen-supervisor/protocol/errors';
import type { Job } from '@qwen-supervisor/protocol/job';
import type {
  ApiSettings,
  ClientMethods,
  Hello,
  SupervisorMethods,
  Welcome,
  WorkerMethods,
  WorkerReports,
  WorkerSettings,
} from '@qwen-supervisor/protocol/messages';
import type { ChildName, SystemStatus } from '@qwen-supervisor/protocol/status';
import type { Logger } from 'pino';
import type { ChildEvent } from './child.js';
import { logFile, prepareDataDir, prepareSocket, readPresence, removePresence, writePresence } from './data-folder.js';
import { JobDesk } from './job-desk.js';
import type { JobStore } from './job-store.js';
import { limitsOf } from './limits.js';
import { bindListener, type Listener } from './listener.js';
import { openLog } from './log.js';
import { logChanges } from './log-changes.js';
import { INHERITED_FD, type SpawnedChild, spawnChild } from './spawn-child.js';
import { openSqliteJobStore } from './sqlite-job-store.js';
import { type Effect, type Event, initialState, type Limits, nextDeadline, type State, step } from './supervisor.js';
import { describeSystem } from './system-status.js';
import { VERSION } from './version.js';

type WorkerLink = Link<WorkerMethods, WorkerReports>;
type ClientLink = Link<ClientMethods, SupervisorMethods>;

/** `setTimeout` takes no longer time. */
const TIMER_MAX_MS = 2 ** 31 - 1;

export interface Daemon {
  /** Begins an orderly stop; `ended` resolves when it is done. */
  stop(reason: string): void;
  /** Kills all children now. */
  kill(): void;
  /** The error that ended the supervisor, or null after a planned stop. */
  ended: Promise<ErrorObject | null>;
}

/**
 * Starts a supervisor. Whatever can be known before a process is spawned is checked here, in the order of cost.
 * @throws CodedError of the model, the data folder, the port, or ALREADY_RUNNING
 */
export async function startDaemon(config: Config, env: NodeJS.ProcessEnv): Promise<Daemon> {
  const checkpoint = openCheckpoint(config.model);
  buildGraphs(checkpoint);
  const dataDir = prepareDataDir(config['data-dir']);
  const store = openStore(dataDir);
  let listener: Listener | undefined;
  try {
    listener = bindListener(config.host, config.port);
    const log = openLog(logFile(dataDir), config['log-level']);
    const socket = prepareSocket(dataDir, env);
    const supervisor = new Supervisor({ config, checkpoint, dataDir, store, listener, log, socket });
    await supervisor.open();
    return supervisor;
  } catch (error) {
    listener?.close();
    await store.close();
    throw error;
  }
}

function openStore(dataDir: string): JobStore {
  try {
    return openSqliteJobStore(dataDir);
  } catch (error) {
    if (!(error instanceof CodedError) || error.code !== 'ALREADY_RUNNING') throw error;
    const other = readPresence(dataDir);
    const who = other ? `process ${other.pid}, ${other.url}` : 'another process';
    throw new CodedError('ALREADY_RUNNING', `${dataDir} is in use by ${who}`, { cause: error });
  }
}

interface Parts {
  config: Config;
  checkpoint: Checkpoint;
  dataDir: string;
  store: JobStore;
  listener: Listener;
  log: Logger;
  socket: string;
}

class Supervisor implements Daemon {
  readonly url: string;
  readonly ended: Promise<ErrorObject | null>;
  readonly #parts: Parts;
  readonly #model: ReturnType<typeof describeModel>;
  readonly #limits: Limits;
  readonly #startedMs = Date.now();
  readonly #processes = new Map<ChildName, SpawnedChild>();
  readonly #tokens = new Map<string, { name: ChildName; incarnation: number }>();
  readonly #jobs: JobDesk;
  #state: State = initialState();
  #workerLink: WorkerLink | null = null;
  #apiLink: ClientLink | null = null;
  #ipc: IpcServer | null = null;
  #timer: NodeJS.Timeout | undefined;
  #end: (error: ErrorObject | null) => void = () => {};

  constructor(parts: Parts) {
    this.#parts = parts;
    this.url = parts.listener.url;
    this.#model = describeModel(parts.checkpoint.architecture, basename(parts.checkpoint.folder));
    this.#limits = limitsOf(parts.config);
    this.#jobs = new JobDesk(parts.store, parts.log, {
      current: () => this.#state.current,
      onQueued: () => this.#handle({ type: 'job-queued', atMs: Date.now() }),
      onClaimed: (job) => this.#handle({ type: 'claimed', atMs: Date.now(), job }),
      onCancelRequest: (jobId) => this.#handle({ type: 'cancel-running', atMs: Date.now(), jobId }),
      onStoreFailure: (error) => {
        parts.log.error({ code: error.code }, error.message);
        this.#handle({ type: 'store-failed', atMs: Date.now(), error: error.toObject() });
      },
    });
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  async open(): Promise<void> {
    const { dataDir, log, socket } = this.#parts;
    // Links of children and of clients differ in their methods; which it is shows in `hello`.
    this.#ipc = await listenIpc<ClientMethods & WorkerMethods, SupervisorMethods & WorkerReports>(socket, (link) =>
      this.#handlers(link),
    );
    writePresence(dataDir, { pid: process.pid, socket, url: this.url });
    log.info({ pid: process.pid, model: this.#model.id, data: dataDir }, `listening on ${this.url}`);
    await this.#jobs.recover();
    this.#handle({ type: 'start', atMs: Date.now() });
    this.#handle({ type: 'job-queued', atMs: Date.now() });
  }

  stop(reason: string): void {
    if (!this.#state.stopping) this.#parts.log.info(`stopping: ${reason}`);
    this.#handle({ type: 'stop', atMs: Date.now() });
  }

  kill(): void {
    for (const child of this.#processes.values()) child.kill(true);
  }

  #handle(event: Event): void {
    const before = this.#state;
    const { state, effects } = step(before, event, this.#limits);
    this.#state = state;
    logChanges(this.#parts.log, before, state);
    const worker = state.children.inference;
    if (worker.state === 'failed' && before.children.inference.state !== 'failed') {
      this.#jobs.announceFailure(worker.reason);
    }
    for (const effect of effects) this.#perform(effect);
    clearTimeout(this.#timer);
    const deadline = nextDeadline(this.#state);
    if (deadline !== null) {
      const delay = Math.min(Math.max(0, deadline - Date.now()), TIMER_MAX_MS);
      this.#timer = setTimeout(() => this.#handle({ type: 'tick', atMs: Date.now() }), delay);
    }
  }

  #handleChild(name: ChildName, incarnation: number, event: ChildEvent): void {
    this.#handle({ type: 'child', name, incarnation, atMs: Date.now(), event });
  }

  #perform(effect: Effect): void {
    switch (effect.type) {
      case 'spawn':
        return this.#spawn(effect.name, effect.incarnation);
      case 'ask-stop':
        return effect.name === 'api' ? this.#apiLink?.notify('shutdown', {}) : this.#workerLink?.notify('shutdown', {});
      case 'kill':
        return this.#processes.get(effect.name)?.kill(effect.tree);
      case 'claim':
        return this.#jobs.claim();
      case 'dispatch':
        return this.#dispatch(effect.job, effect.attempt);
      case 'cancel-run':
        return this.#workerLink?.notify('cancel', { jobId: effect.jobId, attempt: effect.attempt });
      case 'release':
        return this.#jobs.release(effect.jobId, effect.reason, effect.death);
      case 'finish':
        return this.#jobs.finish(effect.jobId, effect.attempt, effect.step, effect.outcome);
      case 'exit':
        return void this.#close(effect.error);
    }
  }

  #spawn(name: ChildName, incarnation: number): void {
    const { listener, socket, config, dataDir, log } = this.#parts;
    const token = randomBytes(16).toString('hex');
    this.#tokens.set(token, { name, incarnation });
    const settings: ApiSettings | WorkerSettings =
      name === 'api'
        ? { listenFd: INHERITED_FD, host: listener.host, port: listener.port }
        : { modelFolder: config.model, dataDir };
    const child = spawnChild({
      name,
      socket,
      token,
      settings,
      fd: name === 'api' ? listener.fd : null,
      onLine: (stream, line) => log.info({ child: name, stream }, line),
      onExit: (code, signal) => {
        this.#tokens.delete(token);
        this.#processes.delete(name);
        this.#handleChild(name, incarnation, {
          type: 'exited',
          code,
          signal,
          at: new Date().toISOString(),
          random: Math.random(),
        });
      },
    });
    // Where nothing could be spawned (no memory, the program is gone) the exit is told like any other.
    if (!child) return;
    this.#processes.set(name, child);
    this.#handleChild(name, incarnation, { type: 'spawned', pid: child.pid });
  }

  #dispatch(job: Job, attempt: number): void {
    const { prompt, negativePrompt, width, height, numInferenceSteps, trueCfgScale, seed } = job;
    const request = { prompt, negativePrompt, width, height, numInferenceSteps, trueCfgScale, seed };
    this.#workerLink?.notify('run', { jobId: job.id, attempt, request });
    this.#jobs.publish({ type: 'running', jobId: job.id, attempt });
  }

  /** What one connection may call. Its first call is `hello`. */
  #handlers(
    link: Link<ClientMethods & WorkerMethods, SupervisorMethods & WorkerReports>,
  ): Handlers<SupervisorMethods & WorkerReports> {
    let peer: { role: Hello['role']; incarnation: number } | null = null;
    link.onFault = (error) =>
      this.#parts.log.error({ peer: peer?.role ?? null }, `connection closed: ${error.message}`);
    const known = (...roles: Hello['role'][]) => {
      if (!peer || !roles.includes(peer.role)) throw new CodedError('INTERNAL', 'this connection may not call that');
      return peer.incarnation;
    };
    const jobs = this.#jobs;
    return {
      hello: (hello) => {
        const child = hello.token === null ? undefined : this.#tokens.get(hello.token);
        if (hello.role !== 'cli' && child?.name !== hello.role) throw new CodedError('INTERNAL', 'unknown token');
        peer = { role: hello.role, incarnation: child?.incarnation ?? 0 };
        if (hello.role === 'inference') this.#workerLink = link;
        if (hello.role === 'api') this.#apiLink = link;
        link.onClose = () => jobs.unsubscribe(link);
        if (child) this.#handleChild(child.name, child.incarnation, { type: 'connected' });
        return this.#welcome();
      },
      submitJob: ({ request }) => {
        known('api', 'cli');
        if (this.#state.stopping) throw new CodedError('SUPERVISOR_STOPPING');
        const { state, reason } = this.#state.children.inference;
        if (state === 'failed') throw workerGivenUp(reason);
        return jobs.submit(request);
      },
      getJob: ({ id }) => {
        known('api', 'cli');
        return jobs.get(id);
      },
      listJobs: async (filter) => {
        known('api', 'cli');
        return { jobs: await jobs.list(filter) };
      },
      cancelJob: ({ id }) => {
        known('api', 'cli');
        return jobs.cancel(id);
      },
      findImage: ({ id }) => {
        known('api', 'cli');
        return jobs.findImage(id);
      },
      status: () => {
        known('api', 'cli');
        return this.#status();
      },
      subscribe: () => {
        known('api', 'cli');
        jobs.subscribe(link);
        return { ok: true };
      },
      stop: () => {
        known('cli');
        // The answer goes out before the stop takes the connection down.
        setImmediate(() => this.stop("'qwen-supervisor stop'"));
        return { ok: true };
      },
      apiReady: () => this.#handleChild('api', known('api'), { type: 'ready' }),
      loading: (progress) =>
        this.#handle({ type: 'loading', incarnation: known('inference'), atMs: Date.now(), progress }),
      loaded: ({ seconds }) =>
        this.#handle({ type: 'loaded', incarnation: known('inference'), atMs: Date.now(), seconds }),
      fatal: (params) => {
        const incarnation = known('inference', 'api');
        const name = peer?.role === 'api' ? 'api' : 'inference';
        this.#handleChild(name, incarnation, { type: 'fatal', ...params });
      },
      beat: () => this.#handleChild('inference', known('inference'), { type: 'beat' }),
      step: ({ jobId, attempt, step: completed, preview }) => {
        const incarnation = known('inference');
        this.#handle({ type: 'job-step', incarnation, atMs: Date.now(), jobId, attempt, step: completed });
        const { current } = this.#state;
        if (current?.job.id !== jobId || current.attempt !== attempt) return;
        this.#jobs.publish({ type: 'step', jobId, step: completed, steps: current.job.steps, preview });
      },
      finished: ({ jobId, attempt, outcome }) => {
        this.#handle({
          type: 'job-finished',
          incarnation: known('inference'),
          atMs: Date.now(),
          jobId,
          attempt,
          outcome,
        });
      },
    };
  }

  #welcome(): Welcome {
    const { config, dataDir } = this.#parts;
    return {
      version: VERSION,
      defaults: this.#model.defaults,
      limits: { maxSteps: config['max-steps'], maxPixels: config['max-pixels'] },
      dataDir,
      modelId: this.#model.id,
      url: this.url,
    };
  }

  async #status(): Promise<SystemStatus> {
    const identity = {
      pid: process.pid,
      version: VERSION,
      uptimeSeconds: (Date.now() - this.#startedMs) / 1000,
      url: this.url,
    };
    const model = { id: this.#model.id, folder: this.#parts.config.model };
    return describeSystem(this.#state, identity, model, await this.#jobs.counts());
  }

  async #close(error: ErrorObject | null): Promise<void> {
    clearTimeout(this.#timer);
    const { log, listener, dataDir } = this.#parts;
    await this.#jobs.close().catch((cause: Error) => log.error(`the job database was not closed: ${cause.message}`));
    this.#ipc?.close();
    listener.close();
    removePresence(dataDir);
    log.info('stopped');
    this.#end(error);
  }
}
