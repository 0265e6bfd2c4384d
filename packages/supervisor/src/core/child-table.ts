/**
 * The lifecycle of one child process as a total table: every state answers every event. Pure; the shell performs the
 * effects and tells what happened.
 *
 *   stopped → starting → loading → ready ⇄ busy → stopping → stopped, and backing-off, blocked, failed
 *
 * An event belongs to an incarnation (one spawned process); events of an earlier one never get here.
 */
import type { ErrorObject } from '@qwen-supervisor/protocol/errors';
import type { ChildState, ExitCause } from '@qwen-supervisor/protocol/status';
import { type Child, type ChildEvent, type ChildLimits, type ChildStep, causeOf, describeExit } from './child.js';
import { hangReason, hasProgressed, hasWorked, loadDeadline, newStepClock, tickStepClock } from './child-health.js';
import { afterSuccess, decideRestart, NO_HISTORY } from './restart-policy.js';

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
/** Healthy for so long, or for three starts if that is longer, forgives earlier failures. */
const HEALTHY_MS = 600_000;
/** From one look at the device's memory to the next: while it should be coming back, and while somebody holds it. */
const PROBE_MS = 250;
const PROBE_HELD_MS = 5000;
const RELEASE_MS = 10_000;

export function stepChild(child: Child, event: ChildEvent, atMs: number, limits: ChildLimits): ChildStep {
  // The row's handler type depends on the event's; the table's type has checked the pairing.
  const handler = TABLE[child.state][event.type] as Handler<typeof event.type>;
  return handler(child, event as never, atMs, limits);
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
    holdsJob: false,
    rssAtReady: null,
    spawnedAtMs: atMs,
    vitals: null,
    beatAtMs: atMs,
    deviceBytes: 0,
    stopCause: null,
    restartReason: null,
    drainReason: null,
    deadlineMs: atMs + CONNECT_LIMIT_MS,
  },
  effects: [{ type: 'spawn', name: child.name, incarnation: child.incarnation + 1 }],
});

/** Spawns, or first waits for the device's memory if the process before held some. */
function startAgain(child: Child, atMs: number, limits: ChildLimits, reason: string): ChildStep {
  if (child.deviceBytes === 0) return keepReason(spawn(child, { type: 'start' }, atMs, limits), reason);
  const blocked: Child = { ...child, state: 'blocked', reason, beatAtMs: atMs, deadlineMs: atMs + PROBE_MS };
  return { child: blocked, effects: [{ type: 'probe-memory', name: child.name }] };
}

/** Clears what was held against it: somebody who knows wants it to run. */
const startAnew: Handler<'restart'> = (child, event, atMs, limits) =>
  startAgain({ ...child, history: NO_HISTORY, stopCause: null }, atMs, limits, event.reason);

/** After a stop that was asked for: the process before may still have to give its device memory back. */
const startWanted: Handler<'wanted'> = (child, { reason }, atMs, limits) =>
  startAgain({ ...child, stopCause: null }, atMs, limits, reason);

const spawned: Handler<'spawned'> = (child, event) => stay({ ...child, pid: event.pid });

const startLoading: Handler<'connected'> = (child, _event, atMs, limits) => {
  // The API has nothing to load and says when it serves.
  if (child.name === 'api') return stay(child);
  const load = { startedMs: atMs, movedAtMs: atMs, progressedAtMs: atMs, share: 0, component: 'process' };
  return stay({
    ...child,
    state: 'loading',
    reason: 'loading the model',
    load,
    deadlineMs: loadDeadline(load, limits),
  });
};

const progress: Handler<'progress'> = (child, { progress: { component, bytesDone, bytesTotal } }, atMs, limits) => {
  const share = bytesDone / Math.max(1, bytesTotal);
  const load = { ...child.load, movedAtMs: atMs, progressedAtMs: atMs, share, component };
  return moveLoad({ ...child, load }, limits);
};

/** ONNX Runtime says nothing while it loads: what the process reads, holds and computes tells whether it goes on. */
const beatLoading: Handler<'beat'> = (child, { vitals }, atMs, limits) => {
  const worked = hasWorked(child.vitals, vitals, atMs - child.beatAtMs);
  const progressedAtMs = hasProgressed(child.vitals, vitals) ? atMs : child.load.progressedAtMs;
  const load = worked ? { ...child.load, movedAtMs: atMs, progressedAtMs } : child.load;
  const seen = { ...child, vitals, beatAtMs: atMs, load };
  return overHardLimit(seen, atMs, limits) ?? (worked ? moveLoad(seen, limits) : stay(seen));
};

/** After `fatal` the deadline is that of the exit, and signs of life do not move it. */
function moveLoad(child: Child, limits: ChildLimits): ChildStep {
  return stay(child.stopCause === null ? { ...child, deadlineMs: loadDeadline(child.load, limits) } : child);
}

const becomeReady: Handler<'ready'> = (child, event, atMs, limits) =>
  stay({
    ...child,
    state: 'ready',
    reason: 'ready',
    wasReady: true,
    healthySinceMs: atMs,
    startMs: Math.max(child.startMs, atMs - child.spawnedAtMs),
    beatAtMs: atMs,
    steps: newStepClock(event.msPerToken, atMs),
    deadlineMs: atMs + limits.beatLimitMs,
  });

const beat: Handler<'beat'> = (child, { vitals }, atMs, limits) => {
  if (child.stopCause !== null) return stay(child);
  const steps = tickStepClock(child.steps, child.vitals, vitals, atMs - child.beatAtMs, atMs);
  const forgiven = child.history.streak > 0 && atMs - child.healthySinceMs > Math.max(HEALTHY_MS, 3 * child.startMs);
  const seen: Child = {
    ...child,
    vitals,
    beatAtMs: atMs,
    steps,
    rssAtReady: child.rssAtReady ?? vitals.rssBytes,
    history: forgiven ? afterSuccess(child.history) : child.history,
    deadlineMs: atMs + limits.beatLimitMs,
  };
  const killed = overHardLimit(seen, atMs, limits);
  if (killed) return killed;
  const hang = child.holdsJob ? hangReason(steps, limits.stepLimitMs, atMs) : null;
  if (hang) return kill(seen, 'hung', hang, atMs);
  const { softBytes } = limits;
  // What the model alone needs, a new process would need too.
  if (softBytes === null || vitals.rssBytes <= softBytes || (seen.rssAtReady ?? 0) > softBytes) return stay(seen);
  const drainReason = `uses ${gigabytes(vitals.rssBytes)} of memory, more than the soft limit`;
  return seen.holdsJob
    ? stay({ ...seen, drainReason })
    : askToStop({ ...seen, restartReason: drainReason }, atMs, limits);
};

function overHardLimit(child: Child, atMs: number, limits: ChildLimits): ChildStep | null {
  const rss = child.vitals?.rssBytes ?? 0;
  if (limits.hardBytes === null || rss <= limits.hardBytes) return null;
  return kill(child, 'memory-limit', `used ${gigabytes(rss)} of memory, more than the hard limit`, atMs);
}

const assign: Handler<'assigned'> = (child, { tokens }, atMs) =>
  stay({
    ...child,
    state: 'busy',
    reason: 'drawing',
    holdsJob: true,
    steps: { ...child.steps, movedAtMs: atMs, workedAtMs: atMs, tokens, slowestMs: null, step: null },
  });

/** Before, beats may still carry the step of the job before; and a resumed one has not made its first steps now. */
const begin: Handler<'begun'> = (child, { step }, atMs) =>
  stay({ ...child, steps: { ...child.steps, movedAtMs: atMs, workedAtMs: atMs, step } });

/** A finished job proves health. */
const finishJob: Handler<'idle'> = (child, _event, atMs, limits) => {
  const idle: Child = {
    ...child,
    state: 'ready',
    reason: 'ready',
    holdsJob: false,
    healthySinceMs: atMs,
    history: afterSuccess(child.history),
  };
  return child.drainReason === null
    ? stay(idle)
    : askToStop({ ...idle, restartReason: child.drainReason }, atMs, limits);
};

/** The child says that it cannot go on and will exit by itself; if not, the deadline kills it. */
const noteFatal: Handler<'fatal'> = (child, event, atMs, limits) =>
  stay({
    ...child,
    reason: `${event.error.code}: ${event.error.message}`,
    stopCause: fatalCause(child, event),
    deadlineMs: atMs + limits.stopMs,
  });

function fatalCause(child: Child, { error, permanent }: { error: ErrorObject; permanent: boolean }): ExitCause {
  if (permanent) return 'permanent';
  if (error.code === 'DEVICE_MEMORY_EXHAUSTED') return 'device-memory';
  return child.state === 'loading' ? 'load-failed' : 'crashed';
}

/** Ends a child that should not run on: at once and without asking. */
const kill = (child: Child, cause: ExitCause | 'planned', reason: string, atMs: number): ChildStep => ({
  child: { ...child, state: 'stopping', reason, stopCause: cause, deadlineMs: atMs + TREE_KILL_MS },
  effects: [{ type: 'kill', name: child.name, incarnation: child.incarnation, tree: false }],
});

function askToStop(child: Child, atMs: number, limits: ChildLimits): ChildStep {
  const reason = child.restartReason === null ? 'asked to stop' : `restarting: ${child.restartReason}`;
  return {
    child: { ...child, state: 'stopping', reason, stopCause: 'planned', deadlineMs: atMs + limits.stopMs },
    effects: [{ type: 'ask-stop', name: child.name }],
  };
}

const stop: Handler<'stop'> = (child, _event, atMs, limits) => askToStop(child, atMs, limits);

const restart: Handler<'restart'> = (child, event, atMs, limits) =>
  askToStop({ ...child, restartReason: event.reason, history: NO_HISTORY }, atMs, limits);

/** Nothing runs or nothing of worth: stop at once. */
const stopNow: Handler<'stop'> = (child, _event, atMs) => kill(child, 'planned', 'asked to stop', atMs);

const restartNow: Handler<'restart'> = (child, event, atMs) =>
  kill({ ...child, restartReason: event.reason, history: NO_HISTORY }, 'planned', `restarting: ${event.reason}`, atMs);

const becomeStopped: Handler<'stop'> = (child) =>
  stay({ ...child, state: 'stopped', pid: null, reason: 'stopped', deadlineMs: null });

const exited: Handler<'exited'> = (child, event, atMs, limits) => {
  const cause = causeOf(child, event);
  const lastExit = { code: event.code, signal: event.signal, cause: cause === 'planned' ? null : cause, at: event.at };
  const gone: Child = { ...child, pid: null, lastExit, stopCause: null, deadlineMs: null };
  if (cause === 'planned') {
    if (child.restartReason !== null) return startAgain(gone, atMs, limits, `restarted: ${child.restartReason}`);
    return stay({ ...gone, state: 'stopped', reason: 'stopped' });
  }
  const startMs = child.wasReady ? child.startMs : Math.max(child.startMs, atMs - child.spawnedAtMs);
  // After `fatal`, or a kill of ours, the reason at hand says more than the exit code.
  const what = child.stopCause === null ? describeExit(event, cause) : child.reason;
  const { decision, history } = decideRestart(
    child.history,
    { cause, what, wasReady: child.wasReady, heldJob: child.holdsJob, startMs, atMs, random: event.random },
    limits,
  );
  const dead: Child = { ...gone, restarts: child.restarts + 1, reason: decision.reason, history, startMs };
  if (decision.kind === 'give-up') return stay({ ...dead, state: 'failed' });
  if (decision.delayMs === 0) return startAgain(dead, atMs, limits, decision.reason);
  return stay({ ...dead, state: 'backing-off', deadlineMs: atMs + decision.delayMs });
};

const tickStarting: Handler<'tick'> = (child, _event, atMs) =>
  isDue(child, atMs) ? killFor(child, 'hung', 'did not answer after its start', atMs) : stay(child);

const tickLoading: Handler<'tick'> = (child, _event, atMs) => {
  if (!isDue(child, atMs)) return stay(child);
  const { component, share, startedMs, movedAtMs } = child.load;
  const [still, whole] = [atMs - movedAtMs, atMs - startedMs].map((ms) => Math.round(ms / 1000));
  const where = `${component} at ${Math.floor(100 * share)} %`;
  return killFor(child, 'stalled', `MODEL_LOAD_STALLED: ${where}, no progress for ${still} s, ${whole} s in all`, atMs);
};

const tickAlive: Handler<'tick'> = (child, _event, atMs) => {
  const silence = Math.round((atMs - child.beatAtMs) / 1000);
  return isDue(child, atMs) ? killFor(child, 'hung', `no sign of life for ${silence} s`, atMs) : stay(child);
};

/** A child that told its fault and then did not exit is killed for that fault. */
function killFor(child: Child, cause: ExitCause, reason: string, atMs: number): ChildStep {
  return child.stopCause === null ? kill(child, cause, reason, atMs) : kill(child, child.stopCause, child.reason, atMs);
}

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
  isDue(child, atMs) ? startAgain(child, atMs, limits, child.reason) : stay(child);

/** `beatAtMs` is when the wait began. */
const tickBlocked: Handler<'tick'> = (child, _event, atMs) => {
  if (!isDue(child, atMs)) return stay(child);
  const every = atMs - child.beatAtMs < RELEASE_MS ? PROBE_MS : PROBE_HELD_MS;
  return { child: { ...child, deadlineMs: atMs + every }, effects: [{ type: 'probe-memory', name: child.name }] };
};

const learnMemory: Handler<'memory'> = (child, { free, holder }, atMs, limits) => {
  if (free) return keepReason(spawn(child, { type: 'start' }, atMs, limits), 'device memory is free again');
  return stay({ ...child, reason: `blocked: device memory is held by ${holder ?? 'a process that is not shown'}` });
};

const holds: Handler<'holds'> = (child, { bytes }) => stay({ ...child, deviceBytes: bytes });

const paused: Handler<'paused'> = (child, { ms }) =>
  stay({
    ...child,
    beatAtMs: child.beatAtMs + ms,
    load: {
      ...child.load,
      startedMs: child.load.startedMs + ms,
      movedAtMs: child.load.movedAtMs + ms,
      progressedAtMs: child.load.progressedAtMs + ms,
    },
    steps: {
      ...child.steps,
      movedAtMs: child.steps.movedAtMs + ms,
      workedAtMs: child.steps.workedAtMs + ms,
    },
    deadlineMs: child.deadlineMs === null ? null : child.deadlineMs + ms,
  });

/** A stop while we already end the child for another cause: it must not come back. */
const planStop: Handler<'stop'> = (child) => stay({ ...child, stopCause: 'planned', restartReason: null });

/** Wanted again while it still ends; after an unplanned end it is started again anyway. */
const startAfterStop: Handler<'wanted'> = (child, { reason }) =>
  stay(child.stopCause === 'planned' ? { ...child, restartReason: child.restartReason ?? reason } : child);

const restartAfterStop: Handler<'restart'> = (child, { reason }, atMs, limits) =>
  startAfterStop({ ...child, history: NO_HISTORY }, { type: 'wanted', reason }, atMs, limits);

/** Events that cannot come in a state, or change nothing there, are still answered. */
const IGNORE: Row = {
  start: stay,
  spawned: stay,
  connected: stay,
  progress: stay,
  ready: stay,
  assigned: stay,
  begun: stay,
  idle: stay,
  beat: stay,
  fatal: stay,
  exited: stay,
  holds: stay,
  memory: stay,
  restart: stay,
  wanted: stay,
  stop: stay,
  paused: stay,
  tick: stay,
};

/** What is the same in every state in which a process lives. */
const ALIVE: Row = { ...IGNORE, fatal: noteFatal, exited, holds, paused };

const TABLE: Record<ChildState, Row> = {
  stopped: { ...IGNORE, start: spawn, restart: startAnew, wanted: startWanted },
  starting: {
    ...ALIVE,
    spawned,
    connected: startLoading,
    ready: becomeReady,
    restart: restartNow,
    stop: stopNow,
    tick: tickStarting,
  },
  loading: {
    ...ALIVE,
    progress,
    beat: beatLoading,
    ready: becomeReady,
    restart: restartNow,
    stop: stopNow,
    tick: tickLoading,
  },
  ready: { ...ALIVE, assigned: assign, beat, restart, stop, tick: tickAlive },
  busy: { ...ALIVE, begun: begin, idle: finishJob, beat, restart, stop, tick: tickAlive },
  stopping: {
    ...IGNORE,
    spawned,
    exited,
    paused,
    restart: restartAfterStop,
    wanted: startAfterStop,
    stop: planStop,
    tick: tickStopping,
  },
  'backing-off': { ...IGNORE, start: spawn, restart: startAnew, stop: becomeStopped, paused, tick: tickBackingOff },
  blocked: { ...IGNORE, memory: learnMemory, restart: startAnew, stop: becomeStopped, paused, tick: tickBlocked },
  failed: { ...IGNORE, start: spawn, restart: startAnew, stop: becomeStopped },
};

function keepReason({ child, effects }: ChildStep, reason: string): ChildStep {
  return { child: { ...child, reason }, effects };
}

function isDue(child: Child, atMs: number): boolean {
  return child.deadlineMs !== null && atMs >= child.deadlineMs;
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`;
}
