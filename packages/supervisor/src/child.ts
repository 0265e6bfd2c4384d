/**
 * The lifecycle of one child process as a total table: every state answers every event. Pure; the shell performs the
 * effects and tells what happened.
 *
 *   stopped → starting → loading → ready ⇄ busy → stopping → stopped, and backing-off, failed
 *
 * An event belongs to an incarnation (one spawned process); events of an earlier one never get here.
 */
import type { ErrorObject } from '@qwen-supervisor/protocol/errors';
import type { ChildExit, ChildName, ChildState } from '@qwen-supervisor/protocol/status';
import {
  decideRestart,
  type ExitCause,
  NO_HISTORY,
  type RestartHistory,
  type RestartLimits,
} from './restart-policy.js';

export interface Child {
  name: ChildName;
  state: ChildState;
  /** Counts the processes spawned for this child. */
  incarnation: number;
  pid: number | null;
  /** Unplanned exits. */
  restarts: number;
  lastExit: ChildExit | null;
  reason: string;
  history: RestartHistory;
  /** This incarnation has been ready. */
  wasReady: boolean;
  /** When this incarnation became ready, or last finished a job. */
  healthySinceMs: number;
  /** When the load began. */
  loadStartedMs: number;
  /** Why we end it: planned, or the cause of the exit that is to come. */
  stopCause: 'planned' | ExitCause | null;
  /** Next moment at which `tick` has something to do; null if only events can move this child. */
  deadlineMs: number | null;
}

export interface ChildLimits extends RestartLimits {
  stopMs: number;
  loadStallMs: number;
  loadLimitMs: number;
  /** No sign of life for so long: hung. Null for a child that does not beat. */
  beatLimitMs: number | null;
}

export type ChildEvent =
  | { type: 'start' }
  | { type: 'spawned'; pid: number }
  | { type: 'connected' }
  /** `share` of the load that is done, 0 to 1. */
  | { type: 'progress'; share: number }
  | { type: 'ready' }
  | { type: 'assigned' }
  | { type: 'idle' }
  | { type: 'beat' }
  | { type: 'fatal'; error: ErrorObject; permanent: boolean }
  | { type: 'exited'; code: number | null; signal: string | null; at: string; random: number }
  | { type: 'stop' }
  | { type: 'tick' };

export type ChildEffect =
  | { type: 'spawn'; name: ChildName; incarnation: number }
  /** Ask over IPC. */
  | { type: 'ask-stop'; name: ChildName }
  /** SIGKILL to the process group; `tree` also to every descendant that left it. */
  | { type: 'kill'; name: ChildName; incarnation: number; tree: boolean };

export type ChildStep = { child: Child; effects: ChildEffect[] };

type Handler<T extends ChildEvent['type']> = (
  child: Child,
  event: Extract<ChildEvent, { type: T }>,
  atMs: number,
  limits: ChildLimits,
) => ChildStep;
type Row = { [T in ChildEvent['type']]: Handler<T> };

/** How long a start may take until the child has connected. */
const CONNECT_LIMIT_MS = 30_000;
/** After SIGKILL to the group, descendants that left it get so long before the tree is killed. */
const TREE_KILL_MS = 1000;
/** Healthy for so long forgives earlier failures. */
const HEALTHY_MS = 60_000;

export function newChild(name: ChildName): Child {
  return {
    name,
    state: 'stopped',
    incarnation: 0,
    pid: null,
    restarts: 0,
    lastExit: null,
    reason: 'not started',
    history: NO_HISTORY,
    wasReady: false,
    healthySinceMs: 0,
    loadStartedMs: 0,
    stopCause: null,
    deadlineMs: null,
  };
}

export function stepChild(child: Child, event: ChildEvent, atMs: number, limits: ChildLimits): ChildStep {
  // The row's handler type depends on the event's; the table's type has checked the pairing.
  const handler = TABLE[child.state][event.type] as Handler<typeof event.type>;
  return handler(child, event as never, atMs, limits);
}

/** Signals that no process sends itself: an operator did, or the kernel for want of memory. */
const OUTSIDE_SIGNALS = new Set(['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT']);

/** How an exit of this child, seen now, came about. */
export function causeOf(child: Child, signal: string | null): ExitCause | 'planned' {
  return child.stopCause ?? (signal !== null && OUTSIDE_SIGNALS.has(signal) ? 'killed' : 'crashed');
}

const stay = (child: Child): ChildStep => ({ child, effects: [] });

const spawn: Handler<'start'> = (child, _event, atMs) => ({
  child: {
    ...child,
    state: 'starting',
    incarnation: child.incarnation + 1,
    pid: null,
    reason: 'process starting',
    wasReady: false,
    stopCause: null,
    deadlineMs: atMs + CONNECT_LIMIT_MS,
  },
  effects: [{ type: 'spawn', name: child.name, incarnation: child.incarnation + 1 }],
});

const spawned: Handler<'spawned'> = (child, event) => stay({ ...child, pid: event.pid });

const startLoading: Handler<'connected'> = (child, _event, atMs, limits) => {
  // The API has nothing to load and says when it serves.
  if (child.name === 'api') return stay(child);
  const loading: Child = { ...child, state: 'loading', reason: 'loading the model', loadStartedMs: atMs };
  return stay({ ...loading, deadlineMs: loadDeadline(loading, 0, atMs, limits) });
};

/** After `fatal` the deadline is that of the exit, and signs of life do not move it. */
const progress: Handler<'progress'> = (child, event, atMs, limits) =>
  stay(child.stopCause === null ? { ...child, deadlineMs: loadDeadline(child, event.share, atMs, limits) } : child);

const becomeReady: Handler<'ready'> = (child, _event, atMs, limits) =>
  stay({
    ...child,
    state: 'ready',
    reason: 'ready',
    wasReady: true,
    healthySinceMs: atMs,
    deadlineMs: beatDeadline(atMs, limits),
  });

const beat: Handler<'beat'> = (child, _event, atMs, limits) => {
  if (child.stopCause !== null) return stay(child);
  const forgiven = atMs - child.healthySinceMs > HEALTHY_MS && child.history.streak > 0;
  return stay({
    ...child,
    history: forgiven ? { ...child.history, streak: 0 } : child.history,
    deadlineMs: beatDeadline(atMs, limits),
  });
};

const assign: Handler<'assigned'> = (child) => stay({ ...child, state: 'busy', reason: 'drawing' });

/** A finished job proves health. */
const finishJob: Handler<'idle'> = (child) =>
  stay({ ...child, state: 'ready', reason: 'ready', history: { ...child.history, streak: 0 } });

/** The child says that it cannot go on and will exit by itself; if not, the deadline kills it. */
const noteFatal: Handler<'fatal'> = (child, event, atMs, limits) =>
  stay({
    ...child,
    reason: `${event.error.code}: ${event.error.message}`,
    stopCause: event.permanent ? 'permanent' : 'crashed',
    deadlineMs: atMs + limits.stopMs,
  });

/** Ends a child that should not run on: at once and without asking. */
const kill = (child: Child, cause: ExitCause, reason: string, atMs: number): ChildStep => ({
  child: { ...child, state: 'stopping', reason, stopCause: cause, deadlineMs: atMs + TREE_KILL_MS },
  effects: [{ type: 'kill', name: child.name, incarnation: child.incarnation, tree: false }],
});

const askToStop: Handler<'stop'> = (child, _event, atMs, limits) => ({
  child: {
    ...child,
    state: 'stopping',
    reason: 'asked to stop',
    stopCause: 'planned',
    deadlineMs: atMs + limits.stopMs,
  },
  effects: [{ type: 'ask-stop', name: child.name }],
});

/** Nothing runs or nothing of worth: stop at once. */
const stopNow: Handler<'stop'> = (child, _event, atMs) => ({
  child: {
    ...child,
    state: 'stopping',
    reason: 'asked to stop',
    stopCause: 'planned',
    deadlineMs: atMs + TREE_KILL_MS,
  },
  effects: [{ type: 'kill', name: child.name, incarnation: child.incarnation, tree: false }],
});

const becomeStopped: Handler<'stop'> = (child) =>
  stay({ ...child, state: 'stopped', pid: null, reason: 'stopped', deadlineMs: null });

const unplannedExit: Handler<'exited'> = (child, event, atMs, limits) => {
  const cause = causeOf(child, event.signal) as ExitCause;
  // After `fatal`, or a kill of ours, the reason at hand says more than the exit code.
  const what = child.stopCause === null ? describeExit(event) : child.reason;
  const { decision, history } = decideRestart(
    child.history,
    { cause, what, wasReady: child.wasReady, atMs, random: event.random },
    limits,
  );
  const dead: Child = {
    ...child,
    pid: null,
    restarts: child.restarts + 1,
    lastExit: { code: event.code, signal: event.signal, at: event.at },
    reason: decision.reason,
    history,
    stopCause: null,
  };
  if (decision.kind === 'give-up') return stay({ ...dead, state: 'failed', deadlineMs: null });
  const waiting: Child = { ...dead, state: 'backing-off', deadlineMs: atMs + decision.delayMs };
  return decision.delayMs === 0
    ? keepReason(spawn(waiting, { type: 'start' }, atMs, limits), dead.reason)
    : stay(waiting);
};

const exitWhileStopping: Handler<'exited'> = (child, event, atMs, limits) => {
  if (child.stopCause !== 'planned') return unplannedExit(child, event, atMs, limits);
  const lastExit = { code: event.code, signal: event.signal, at: event.at };
  return stay({
    ...child,
    state: 'stopped',
    pid: null,
    lastExit,
    reason: 'stopped',
    stopCause: null,
    deadlineMs: null,
  });
};

const tickStarting: Handler<'tick'> = (child, _event, atMs) =>
  isDue(child, atMs) ? kill(child, 'hung', fallbackReason(child, 'did not answer after its start'), atMs) : stay(child);

const tickLoading: Handler<'tick'> = (child, _event, atMs, limits) => {
  if (!isDue(child, atMs)) return stay(child);
  const seconds = Math.round((atMs - child.loadStartedMs) / 1000);
  const reason = `MODEL_LOAD_STALLED: no progress for ${limits.loadStallMs / 1000} s, or too little in ${seconds} s`;
  return kill(child, child.stopCause === 'permanent' ? 'permanent' : 'stalled', fallbackReason(child, reason), atMs);
};

const tickAlive: Handler<'tick'> = (child, _event, atMs, limits) =>
  isDue(child, atMs)
    ? kill(child, 'hung', fallbackReason(child, `no sign of life for ${(limits.beatLimitMs ?? 0) / 1000} s`), atMs)
    : stay(child);

const tickStopping: Handler<'tick'> = (child, _event, atMs) => {
  if (!isDue(child, atMs)) return stay(child);
  // First the group, then whatever left it; the exit itself is still awaited.
  const tree = child.reason.endsWith('killing');
  return {
    child: { ...child, reason: tree ? child.reason : `${child.reason}, killing`, deadlineMs: atMs + TREE_KILL_MS },
    effects: [{ type: 'kill', name: child.name, incarnation: child.incarnation, tree }],
  };
};

const tickBackingOff: Handler<'tick'> = (child, _event, atMs, limits) =>
  isDue(child, atMs) ? keepReason(spawn(child, { type: 'start' }, atMs, limits), child.reason) : stay(child);

/** Events that cannot come in a state, or change nothing there, are still answered. */
const IGNORE: { [T in ChildEvent['type']]: Handler<T> } = {
  start: stay,
  spawned: stay,
  connected: stay,
  progress: stay,
  ready: stay,
  assigned: stay,
  idle: stay,
  beat: stay,
  fatal: stay,
  exited: stay,
  stop: stay,
  tick: stay,
};

const TABLE: Record<ChildState, Row> = {
  stopped: { ...IGNORE, start: spawn },
  starting: {
    ...IGNORE,
    spawned,
    connected: startLoading,
    ready: becomeReady,
    fatal: noteFatal,
    exited: unplannedExit,
    stop: stopNow,
    tick: tickStarting,
  },
  loading: {
    ...IGNORE,
    progress,
    ready: becomeReady,
    fatal: noteFatal,
    exited: unplannedExit,
    stop: stopNow,
    tick: tickLoading,
  },
  ready: {
    ...IGNORE,
    assigned: assign,
    beat,
    fatal: noteFatal,
    exited: unplannedExit,
    stop: askToStop,
    tick: tickAlive,
  },
  busy: { ...IGNORE, idle: finishJob, beat, fatal: noteFatal, exited: unplannedExit, stop: askToStop, tick: tickAlive },
  stopping: { ...IGNORE, spawned, exited: exitWhileStopping, stop: planStop, tick: tickStopping },
  'backing-off': { ...IGNORE, start: spawn, stop: becomeStopped, tick: tickBackingOff },
  failed: { ...IGNORE, start: spawn, stop: becomeStopped },
};

/** A stop while we already kill the child for another cause: it must not come back. */
function planStop(child: Child): ChildStep {
  return stay({ ...child, stopCause: 'planned' });
}

function keepReason({ child, effects }: ChildStep, reason: string): ChildStep {
  return { child: { ...child, reason }, effects };
}

/** A child that told its fault and then did not exit is killed for that fault. */
function fallbackReason(child: Child, reason: string): string {
  return child.stopCause === null ? reason : child.reason;
}

/**
 * The stall limit, within a cap: the load limit, or three times what the rate so far predicts if that is more. A load that
 * goes on slowly but steadily is never cut off.
 */
function loadDeadline(child: Child, share: number, atMs: number, limits: ChildLimits): number {
  const predictedMs = share > 0 ? (atMs - child.loadStartedMs) / share : 0;
  const capMs = Math.max(limits.loadLimitMs, 3 * predictedMs);
  return Math.min(atMs + limits.loadStallMs, child.loadStartedMs + capMs);
}

function beatDeadline(atMs: number, limits: ChildLimits): number | null {
  return limits.beatLimitMs === null ? null : atMs + limits.beatLimitMs;
}

function isDue(child: Child, atMs: number): boolean {
  return child.deadlineMs !== null && atMs >= child.deadlineMs;
}

function describeExit({ code, signal }: { code: number | null; signal: string | null }): string {
  if (code === null && signal === null) return 'the process could not be spawned';
  return signal === null ? `exited with code ${code}` : `ended by ${signal}`;
}
