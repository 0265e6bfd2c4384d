/** What the peer at the other end of one connection may call. Its first call is `hello`, which tells who it is. */
import type { Handlers, Link } from '@qwen-supervisor/ipc/link';
import type { ApiKey } from '@qwen-supervisor/protocol/api-keys';
import { CodedError, workerGivenUp } from '@qwen-supervisor/protocol/errors';
import type {
  ClientMethods,
  Hello,
  ReloadReport,
  Snapshot,
  SupervisorMethods,
  Welcome,
  WorkerMethods,
  WorkerReports,
} from '@qwen-supervisor/protocol/messages';
import type { ChildName, SystemStatus } from '@qwen-supervisor/protocol/status';
import type { ChildEvent } from '../core/child.js';
import { type Event, isIdle, type State } from '../core/supervisor.js';
import type { JobDesk } from '../jobs/job-desk.js';
import type { Incarnation } from '../processes/processes.js';
import type { EventLog } from '../records/event-log.js';

/** Children and clients differ in their methods; which a peer is shows only in `hello`. */
export type PeerLink = Link<ClientMethods & WorkerMethods, SupervisorMethods & WorkerReports>;

/** What a connection needs of the supervisor. */
export interface Supervised {
  readonly jobs: JobDesk;
  readonly events: EventLog;
  state(): State;
  /** Monotonic. */
  nowMs(): number;
  apiKeys(): ApiKey[];
  handle(event: Event): void;
  handleChild(name: ChildName, incarnation: number, event: ChildEvent): void;
  childOf(token: string): Incarnation | null;
  attach(child: Incarnation, link: PeerLink): void;
  /** Everything that the child has sent is received. */
  detach(child: Incarnation): void;
  fault(peer: string | null, error: Error): void;
  welcome(): Welcome;
  status(): Promise<SystemStatus>;
  snapshot(): Promise<Snapshot>;
  metrics(): Promise<string>;
  stop(reason: string): void;
  restart(name: ChildName, reason: string): void;
  reload(): ReloadReport;
}

export function answer(link: PeerLink, supervisor: Supervised): Handlers<SupervisorMethods & WorkerReports> {
  let peer: { role: Hello['role']; incarnation: number } | null = null;
  link.onFault = (error) => supervisor.fault(peer?.role ?? null, error);
  const { jobs, events } = supervisor;
  const known = (...roles: Hello['role'][]) => {
    if (!peer || !roles.includes(peer.role)) throw new CodedError('INTERNAL', 'this connection may not call that');
    return peer.incarnation;
  };
  const client = () => known('api', 'cli');
  /** Why no new job is accepted now; null if they are. */
  const refusal = (): CodedError | null => {
    client();
    const { stopping, finishing, children } = supervisor.state();
    if (stopping || finishing) return new CodedError('SUPERVISOR_STOPPING');
    return children.inference.state === 'failed' ? workerGivenUp(children.inference.reason) : null;
  };
  /** An event of the worker that is connected here. */
  const report = () => ({ incarnation: known('inference'), atMs: supervisor.nowMs() });

  return {
    hello: (hello) => {
      const child = hello.token === null ? null : supervisor.childOf(hello.token);
      if (hello.role !== 'cli' && child?.name !== hello.role) throw new CodedError('INTERNAL', 'unknown token');
      peer = { role: hello.role, incarnation: child?.number ?? 0 };
      link.onClose = () => {
        events.unsubscribe(link);
        if (child) supervisor.detach(child);
      };
      if (child) {
        supervisor.attach(child, link);
        supervisor.handleChild(child.name, child.number, { type: 'connected' });
      }
      return supervisor.welcome();
    },
    submitJobs: ({ orders, idempotency }) => jobs.submit(orders, idempotency, refusal()),
    retryJob: ({ id, idempotency }) => jobs.retry(id, idempotency, refusal()),
    getJob: ({ id }) => {
      client();
      return jobs.get(id);
    },
    listJobs: ({ filter, cursor, limit }) => {
      client();
      return jobs.list(filter, cursor, limit);
    },
    cancelJob: ({ id, ifQueued }) => {
      client();
      return jobs.cancel(id, { ifQueued });
    },
    cancelJobs: async (scope) => {
      client();
      return { cancelled: await jobs.cancelAll(scope) };
    },
    interruptJob: ({ id }) => {
      client();
      return jobs.cancel(id, { keep: true });
    },
    moveJob: ({ id, priority, before }) => {
      client();
      return jobs.move(id, priority, before);
    },
    removeJob: async ({ id }) => {
      client();
      await jobs.remove(id);
      return { ok: true };
    },
    findImage: ({ id }) => {
      client();
      return jobs.findImage(id);
    },
    listPictures: ({ cursor, limit }) => {
      client();
      return jobs.pictures(cursor, limit);
    },
    status: () => {
      client();
      return supervisor.status();
    },
    snapshot: () => {
      client();
      return supervisor.snapshot();
    },
    metrics: async () => {
      client();
      return { text: await supervisor.metrics() };
    },
    loadModel: () => {
      client();
      const { inference } = supervisor.state().children;
      if (inference.state === 'failed') throw workerGivenUp(inference.reason);
      supervisor.handle({ type: 'load-model', atMs: supervisor.nowMs() });
      return { ok: true };
    },
    unloadModel: () => {
      client();
      const { children } = supervisor.state();
      // Nothing is loaded.
      if (children.inference.state === 'stopped' || children.inference.state === 'failed') return { ok: true };
      if (!isIdle(supervisor.state()))
        throw new CodedError('MODEL_IN_USE', `the worker is ${children.inference.state}`);
      supervisor.handle({ type: 'unload-model', atMs: supervisor.nowMs() });
      return { ok: true };
    },
    subscribe: ({ since }) => {
      client();
      events.subscribe(link, since);
      return { ok: true };
    },
    stop: () => {
      known('cli');
      // The answer goes out before the stop takes the connection down.
      setImmediate(() => supervisor.stop("'qwen-supervisor stop'"));
      return { ok: true };
    },
    restart: ({ name }) => {
      client();
      const reason = peer?.role === 'cli' ? "'qwen-supervisor restart'" : 'asked for over HTTP';
      // An API that restarts itself answers first.
      setImmediate(() => supervisor.restart(name, reason));
      return { ok: true };
    },
    reload: () => {
      known('cli');
      return supervisor.reload();
    },
    apiKeys: () => {
      known('api');
      return { keys: supervisor.apiKeys() };
    },
    apiReady: () => supervisor.handleChild('api', known('api'), { type: 'ready', msPerToken: 0 }),
    fatal: (fault) => {
      const incarnation = known('inference', 'api');
      supervisor.handleChild(peer?.role === 'api' ? 'api' : 'inference', incarnation, { type: 'fatal', ...fault });
    },
    beat: (vitals) => {
      const incarnation = known('inference', 'api');
      supervisor.handleChild(peer?.role === 'api' ? 'api' : 'inference', incarnation, { type: 'beat', vitals });
    },
    loading: (progress) => supervisor.handle({ type: 'loading', ...report(), progress }),
    loaded: (loaded) => supervisor.handle({ type: 'loaded', ...report(), ...loaded }),
    begun: (begun) => supervisor.handle({ type: 'job-begun', ...report(), ...begun }),
    step: ({ jobId, attempt, step, preview }) => {
      supervisor.handle({ type: 'job-step', ...report(), jobId, attempt, step });
      const { current } = supervisor.state();
      if (current?.job.id === jobId && current.attempt === attempt) jobs.step(jobId, step, current.job.steps, preview);
    },
    decoding: ({ jobId }) => {
      known('inference');
      if (supervisor.state().current?.job.id === jobId) jobs.decoding(jobId);
    },
    finished: (finished) => supervisor.handle({ type: 'job-finished', ...report(), ...finished }),
  };
}
