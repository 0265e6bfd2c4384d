/** How a child comes to its end, and who is to blame: cells of child-table.ts. Pure. */
import { OF_DEVICE } from '@qwen-supervisor/protocol/device-fault';
import type { ErrorObject } from '@qwen-supervisor/protocol/errors';
import type { ExitCause } from '@qwen-supervisor/protocol/status';
import {
  activityOf,
  type Child,
  type ChildEffect,
  type ChildLimits,
  type ChildStep,
  causeOf,
  describeExit,
  type Ending,
  isDue,
  NO_DEVICE,
  type Of,
  stay,
  until,
} from './child.js';
import { startAgain } from './child-starts.js';
import { decideRestart, NO_HISTORY } from './restart-policy.js';

/** After SIGKILL to the group, descendants that left it get this long before the tree is killed. */
const TREE_KILL_MS = 1000;
/** Silence is looked at twice: after this share of a beat limit, and when all of it is over. */
export const FIRST_LOOK = 2 / 3;
/** From the first look to the second where a limit is not of beats; the busy beat every second. */
const LOOK_AGAIN_MS = 5000;
/** A look that is later than this tells that this process stood still meanwhile, and nothing could reach it. */
const LATE_MS = 1000;
/** Looks after which lateness excuses nobody: the machine is slow, not stopped. */
const LOOKS_MAX = 5;

/** The child says that it cannot go on and will exit by itself; if not, the deadline kills it. */
export function die(child: Child, event: Of<'fatal'>, atMs: number, limits: ChildLimits): ChildStep {
  const reason = `${event.error.code}: ${event.error.message}`;
  const ending: Ending = { to: 'judgement', cause: fatalCause(child, event), reason };
  const dying = { phase: 'dying', during: activityOf(child), reason, ending, drain: null } as const;
  return stay({ ...child, ...dying, ...until(atMs + limits.stopMs) });
}

function fatalCause({ phase }: Child, { error, permanent }: { error: ErrorObject; permanent: boolean }): ExitCause {
  if (error.code === 'DEVICE_MEMORY_EXHAUSTED') return 'device-memory';
  // A load may tell so of a device that was well when it was chosen.
  if (error.code === 'DEVICE_LOST' || OF_DEVICE.includes(error.code)) return 'device';
  if (permanent) return 'permanent';
  return phase === 'loading' ? 'load-failed' : 'crashed';
}

/** Ends of which only the state of the threads can tell more. */
const isHang = (ending: Ending) => ending.to === 'judgement' && (ending.cause === 'hung' || ending.cause === 'stalled');

/** Ends a child that should not run on: at once and without asking. */
export function kill(child: Child, ending: Ending, atMs: number): ChildStep {
  const { name, incarnation } = child;
  const effect: ChildEffect = { type: 'kill', name, incarnation, tree: false, noteThreads: isHang(ending) };
  const reason = describeEnding(ending);
  const killing = { phase: 'killing', during: activityOf(child), reason, ending, drain: null } as const;
  return { child: { ...child, ...killing, ...until(atMs + TREE_KILL_MS) }, effects: [effect] };
}

export function askToStop(
  child: Child,
  ending: Ending,
  forGood: boolean,
  atMs: number,
  limits: ChildLimits,
): ChildStep {
  const stopping = { phase: 'stopping', during: activityOf(child), ending, drain: null } as const;
  return {
    child: { ...child, ...stopping, reason: describeEnding(ending), ...until(atMs + limits.stopMs) },
    effects: [{ type: 'ask-stop', name: child.name, forGood }],
  };
}

function describeEnding(ending: Ending): string {
  if (ending.to === 'stop') return 'asked to stop';
  return ending.to === 'restart' ? `restarting: ${ending.reason}` : ending.reason;
}

export function stop(child: Child, { forGood }: Of<'stop'>, atMs: number, limits: ChildLimits): ChildStep {
  return askToStop(child, { to: 'stop' }, forGood, atMs, limits);
}

export function restart(child: Child, { reason }: Of<'restart'>, atMs: number, limits: ChildLimits): ChildStep {
  return askToStop({ ...child, history: NO_HISTORY }, { to: 'restart', reason }, false, atMs, limits);
}

/** Nothing runs or nothing of worth: stop at once. */
export function stopNow(child: Child, _event: Of<'stop'>, atMs: number): ChildStep {
  return kill(child, { to: 'stop' }, atMs);
}

export function restartNow(child: Child, { reason }: Of<'restart'>, atMs: number): ChildStep {
  return kill({ ...child, history: NO_HISTORY }, { to: 'restart', reason }, atMs);
}

export function becomeStopped(child: Child): ChildStep {
  return stay({ ...child, phase: 'stopped', pid: null, reason: 'stopped', deadlineMs: null });
}

/** A stop while it ends already, for whatever cause: it must not come back. */
export function planStop(child: Child): ChildStep {
  return stay({ ...child, ending: { to: 'stop' } });
}

/** Wanted again while it still ends; after an unplanned end it is started again anyway. */
export function startAfterStop(child: Child, { reason }: { reason: string }): ChildStep {
  return stay(child.ending?.to === 'stop' ? { ...child, ending: { to: 'restart', reason } } : child);
}

export function restartAfterStop(child: Child, { reason }: Of<'restart'>): ChildStep {
  return startAfterStop({ ...child, history: NO_HISTORY }, { reason });
}

export function exited(child: Child, event: Of<'exited'>, atMs: number, limits: ChildLimits): ChildStep {
  const { ending } = child;
  const cause = causeOf(child, event);
  const { code, signal, at } = event;
  const lastExit = { code, signal, cause: cause === 'planned' ? null : cause, at };
  const gone: Child = { ...child, pid: null, lastExit, ending: null, drain: null, deadlineMs: null };
  if (cause === 'planned') {
    if (ending?.to === 'restart') return startAgain(gone, `restarted: ${ending.reason}`, atMs);
    return stay({ ...gone, phase: 'stopped', reason: 'stopped' });
  }
  const wasReady = child.healthySinceMs !== null;
  const startMs = wasReady ? child.startMs : Math.max(child.startMs, atMs - child.spawnedAtMs);
  // After `fatal`, or a kill of ours, the reason at hand says more than the exit code.
  const what = ending?.to === 'judgement' ? ending.reason : describeExit(event, cause);
  const heldJob = activityOf(child) === 'busy';
  const exit = { cause, what, wasReady, heldJob, startMs, atMs, random: event.random };
  const { decision, history } = decideRestart(child.history, exit, limits);
  const dead: Child = { ...gone, restarts: child.restarts + 1, reason: decision.reason, history, startMs };
  if (decision.kind === 'give-up') return stay({ ...dead, phase: 'failed' });
  if (decision.kind === 'next-device') {
    // What it held of the card is not waited for.
    const { child: next, effects } = startAgain({ ...dead, device: NO_DEVICE }, decision.reason, atMs);
    return { child: next, effects: [{ type: 'use-next-device', name: child.name, reason: what }, ...effects] };
  }
  if (decision.delayMs === 0) return startAgain(dead, decision.reason, atMs);
  return stay({ ...dead, phase: 'backing-off', ...until(atMs + decision.delayMs) });
}

export function tickStarting(child: Child, _event: Of<'tick'>, atMs: number): ChildStep {
  const reason = 'did not answer after its start';
  return onceSure(child, atMs, LOOK_AGAIN_MS, () => kill(child, { to: 'judgement', cause: 'hung', reason }, atMs));
}

export function tickLoading(child: Child, _event: Of<'tick'>, atMs: number, limits: ChildLimits): ChildStep {
  const { component, share, startedMs, movedAtMs } = child.load;
  const [still, whole] = [atMs - movedAtMs, atMs - startedMs].map((ms) => Math.round(ms / 1000));
  const where = `${component} at ${Math.floor(100 * share)} %`;
  const reason = `MODEL_LOAD_STALLED: ${where}, no progress for ${still} s, ${whole} s in all`;
  const lookAgainMs = Math.min(LOOK_AGAIN_MS, limits.loadStallMs / 4);
  return onceSure(child, atMs, lookAgainMs, () => kill(child, { to: 'judgement', cause: 'stalled', reason }, atMs));
}

export function tickAlive(child: Child, _event: Of<'tick'>, atMs: number, limits: ChildLimits): ChildStep {
  const reason = `no sign of life for ${Math.round((atMs - child.beatAtMs) / 1000)} s`;
  const lookAgainMs = (1 - FIRST_LOOK) * limits.beatLimitMs;
  return onceSure(child, atMs, lookAgainMs, () => kill(child, { to: 'judgement', cause: 'hung', reason }, atMs));
}

export function tickStopping(child: Child, _event: Of<'tick'>, atMs: number): ChildStep {
  return onceSure(child, atMs, 0, () => finishOff(child, atMs));
}

/** A child that told its fault and then did not exit is killed for that fault. */
export function tickDying(child: Child, _event: Of<'tick'>, atMs: number): ChildStep {
  return onceSure(child, atMs, 0, () => finishOff(child, atMs));
}

function finishOff(child: Child, atMs: number): ChildStep {
  const killed = kill(child, child.ending ?? { to: 'stop' }, atMs);
  return { child: { ...killed.child, reason: `${child.reason}, killing` }, effects: killed.effects };
}

/** First the group was killed, now whatever left it; the exit itself is still awaited. */
export function tickKilling(child: Child, _event: Of<'tick'>, atMs: number): ChildStep {
  if (!isDue(child, atMs)) return stay(child);
  const { name, incarnation } = child;
  return {
    child: { ...child, deadlineMs: atMs + TREE_KILL_MS },
    effects: [{ type: 'kill', name, incarnation, tree: true, noteThreads: false }],
  };
}

/**
 * Nobody is blamed for a silence in which this process did not run: a deadline is looked at twice, and a look that
 * comes late is no look. `againMs`: from a look to the next; 0 where one look in time is enough.
 */
function onceSure(child: Child, atMs: number, againMs: number, act: () => ChildStep): ChildStep {
  const { deadlineMs } = child;
  if (deadlineMs === null || !isDue(child, atMs)) return stay(child);
  const looks = child.looks + 1;
  const inTime = atMs - deadlineMs <= LATE_MS;
  if (looks >= LOOKS_MAX || (inTime && (looks > 1 || againMs === 0))) return act();
  return stay({ ...child, looks, deadlineMs: atMs + Math.max(againMs, LATE_MS) });
}
