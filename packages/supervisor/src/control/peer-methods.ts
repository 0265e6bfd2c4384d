/** What the peer at the other end of one connection may call. Its first call is `hello`, which tells who it is. */
import type { Handlers, Link } from '@qwen-supervisor/ipc/link';
import { VERSION } from '@qwen-supervisor/ipc/version';
import type { ApiKey } from '@qwen-supervisor/protocol/api-keys';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { describeIssues } from '@qwen-supervisor/protocol/job-request';
import { MESSAGES } from '@qwen-supervisor/protocol/message-schemas';
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
import { roleOfChild, type SystemStatus, type WorkerName } from '@qwen-supervisor/protocol/status';
import type { ChildEvent } from '../core/child.js';
import type { Event } from '../core/events.js';
import { childrenOf, givenUp, type State, submitRefusal, unloadRefusal } from '../core/state.js';
import type { JobDesk } from '../jobs/job-desk.js';
import type { Incarnation } from '../processes/processes.js';
import type { EventLog } from '../records/event-log.js';

/** Children and clients differ in their methods; which a peer is shows only in `hello`. */
export type PeerLink = Link<ClientMethods & WorkerMethods, Answered>;
type Answered = SupervisorMethods & WorkerReports;

/** What a connection needs of the supervisor. */
export interface Supervised {
  readonly jobs: JobDesk;
  readonly events: EventLog;
  state(): State;
  send(event: Event): void;
  /** Monotonic. */
  nowMs(): number;
  children: {
    withToken(token: string): Incarnation | null;
    attach(child: Incarnation, link: PeerLink): void;
    /** Everything that the child has sent is received. */
    detach(child: Incarnation): void;
  };
  ask: {
    welcome(): Welcome;
    status(): Promise<SystemStatus>;
    snapshot(): Promise<Snapshot>;
    metrics(): Promise<string>;
    apiKeys(): ApiKey[];
    reload(): Promise<ReloadReport>;
    stop(reason: string): void;
    /** @throws CodedError MACHINE_NOT_FOUND */
    drain(name: string, isDrained: boolean): Promise<void>;
    /** Whether a job need not wait for a worker of this machine. */
    othersDraw(): boolean;
  };
  onFault(peer: string | null, error: Error): void;
}

type Role = Hello['role'];

/** Who may call what; `hello` makes a peer known. */
const MAY_CALL: Record<Exclude<keyof Answered, 'hello'>, Role[]> = {
  submitJobs: ['api', 'cli'],
  retryJob: ['api', 'cli'],
  getJob: ['api', 'cli'],
  listJobs: ['api', 'cli'],
  waitingJobs: ['api', 'cli'],
  cancelJob: ['api', 'cli'],
  cancelJobs: ['api', 'cli'],
  interruptJob: ['api', 'cli'],
  moveJob: ['api', 'cli'],
  removeJob: ['api', 'cli'],
  findImage: ['api', 'cli'],
  listPictures: ['api', 'cli'],
  pictureFacets: ['api', 'cli'],
  markPictures: ['api', 'cli'],
  emptyTrash: ['api', 'cli'],
  status: ['api', 'cli'],
  snapshot: ['api', 'cli'],
  metrics: ['api', 'cli'],
  loadModel: ['api', 'cli'],
  unloadModel: ['api', 'cli'],
  subscribe: ['api', 'cli'],
  restart: ['api', 'cli'],
  drainMachine: ['api', 'cli'],
  stop: ['cli'],
  reload: ['cli'],
  apiReady: ['api'],
  apiKeys: ['api'],
  beat: ['inference', 'api'],
  fatal: ['inference', 'api'],
  loading: ['inference'],
  loaded: ['inference'],
  begun: ['inference'],
  step: ['inference'],
  decoding: ['inference'],
  finished: ['inference'],
};

export function answer(link: PeerLink, supervisor: Supervised): Handlers<Answered> {
  let peer: { role: Role; child: Incarnation | null } | null = null;
  link.onFault = (error) => supervisor.onFault(peer?.role ?? null, error);
  const { jobs, events, ask } = supervisor;
  const send = supervisor.send.bind(supervisor);
  const now = () => ({ atMs: supervisor.nowMs() });
  /** The process that is connected here. */
  const sender = () => peer?.child as Incarnation;
  const tellChild = (event: ChildEvent) => {
    const { name, number: incarnation } = sender();
    send({ type: 'child', name, incarnation, ...now(), event });
  };
  const report = () => ({ worker: sender().name as WorkerName, incarnation: sender().number, ...now() });
  const refusal = () => submitRefusal(supervisor.state(), ask.othersDraw());

  const handlers: Handlers<Answered> = {
    hello: ({ role, token, version }) => {
      if (peer) throw new CodedError('MESSAGE_INVALID', 'a connection says hello once');
      const child = token === null ? null : supervisor.children.withToken(token);
      if (role !== 'cli' && (child === null || roleOfChild(child.name) !== role))
        throw new CodedError('MESSAGE_INVALID', 'unknown token');
      peer = { role, child: role === 'cli' ? null : child };
      link.onClose = () => {
        events.unsubscribe(link);
        if (peer?.child) supervisor.children.detach(peer.child);
      };
      if (peer.child) {
        supervisor.children.attach(peer.child, link);
        tellChild({ type: 'connected' });
        if (version !== VERSION) throw refuseVersion(version, tellChild);
      }
      return ask.welcome();
    },
    submitJobs: ({ orders, idempotency }) => jobs.submit(orders, idempotency, refusal()),
    retryJob: ({ id, idempotency, owner }) => jobs.retry(id, idempotency, owner, refusal()),
    getJob: ({ id }) => jobs.get(id),
    listJobs: ({ filter, cursor, limit }) => jobs.list(filter, cursor, limit),
    waitingJobs: async ({ limit }) => ({ jobs: await jobs.waiting(limit) }),
    cancelJob: ({ id, ifQueued }) => jobs.cancel(id, { ifQueued }),
    cancelJobs: async (scope) => ({ cancelled: await jobs.cancelAll(scope) }),
    interruptJob: ({ id }) => jobs.cancel(id, { keep: true }),
    moveJob: ({ id, priority, before }) => jobs.move(id, priority, before),
    removeJob: async ({ id }) => {
      await jobs.remove(id);
      return { ok: true };
    },
    findImage: ({ id }) => jobs.gallery.find(id),
    listPictures: ({ filter, cursor, limit }) => jobs.gallery.list(filter, cursor, limit),
    pictureFacets: () => jobs.gallery.facets(),
    markPictures: async ({ ids, marks }) => ({ changed: await jobs.gallery.mark(ids, marks) }),
    emptyTrash: async () => ({ removed: await jobs.gallery.emptyTrash() }),
    status: () => ask.status(),
    snapshot: () => ask.snapshot(),
    metrics: async () => ({ text: await ask.metrics() }),
    loadModel: () => {
      refuse(givenUp(supervisor.state()));
      send({ type: 'load-model', ...now() });
      return { ok: true };
    },
    unloadModel: () => {
      refuse(unloadRefusal(supervisor.state()));
      send({ type: 'unload-model', ...now() });
      return { ok: true };
    },
    subscribe: ({ since }) => {
      events.subscribe(link, since);
      return { ok: true };
    },
    stop: () => {
      // The answer goes out before the stop takes the connection down.
      setImmediate(() => ask.stop("'qwen-supervisor stop'"));
      return { ok: true };
    },
    restart: ({ name }) => {
      const names = childrenOf(supervisor.state()).map((child) => child.name);
      if (!names.includes(name))
        throw new CodedError('REQUEST_INVALID', `there is no ${name}; there are ${names.join(', ')}`);
      const reason = peer?.role === 'cli' ? "'qwen-supervisor restart'" : 'asked for over HTTP';
      // An API that restarts itself answers first.
      setImmediate(() => send({ type: 'restart', name, reason, ...now() }));
      return { ok: true };
    },
    drainMachine: async ({ name, isDrained }) => {
      await ask.drain(name, isDrained);
      return { ok: true };
    },
    reload: () => ask.reload(),
    apiKeys: () => ({ keys: ask.apiKeys() }),
    apiReady: () => tellChild({ type: 'ready', msPerToken: 0 }),
    fatal: (fault) => tellChild({ type: 'fatal', ...fault }),
    beat: (vitals) => tellChild({ type: 'beat', vitals }),
    loading: (progress) => send({ type: 'loading', ...report(), progress }),
    loaded: (loaded) => send({ type: 'loaded', ...report(), ...loaded }),
    begun: (begun) => send({ type: 'job-begun', ...report(), ...begun }),
    step: (step) => send({ type: 'job-step', ...report(), ...step }),
    decoding: (run) => send({ type: 'job-decoding', ...report(), ...run }),
    finished: (finished) => send({ type: 'job-finished', ...report(), ...finished }),
  };
  return guarded(handlers, () => peer?.role ?? null);
}

/** Each method behind a look at who calls, and with what. */
function guarded(handlers: Handlers<Answered>, role: () => Role | null): Handlers<Answered> {
  const entries = Object.entries(handlers).map(([name, handler]) => {
    const method = name as keyof Answered;
    const checked = (params: unknown) => {
      const caller = role();
      if (method !== 'hello' && (caller === null || !MAY_CALL[method].includes(caller)))
        throw new CodedError('MESSAGE_INVALID', `${caller ?? 'a stranger'} may not call ${method}`);
      const parsed = MESSAGES[method].safeParse(params);
      if (!parsed.success) throw new CodedError('MESSAGE_INVALID', `${method}: ${describeIssues(parsed.error)}`);
      return (handler as (params: unknown) => unknown)(parsed.data);
    };
    return [method, checked];
  });
  return Object.fromEntries(entries) as Handlers<Answered>;
}

/** The program on the disk is not the one that runs here: what the two say to each other may differ. */
function refuseVersion(version: string, tellChild: (event: ChildEvent) => void): CodedError {
  const error = new CodedError('VERSION_MISMATCH', `the supervisor is version ${VERSION}, its child ${version}`);
  tellChild({ type: 'fatal', error: error.toObject(), permanent: true });
  return error;
}

/** @throws CodedError the refusal */
function refuse(refusal: CodedError | null): void {
  if (refusal) throw refusal;
}
