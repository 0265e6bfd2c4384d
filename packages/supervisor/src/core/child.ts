/** What is known about one child process, what can happen to it, and what can be done with it. */
import type { ErrorObject } from '@qwen-supervisor/protocol/errors';
import type {
  ChildExit,
  ChildName,
  ChildState,
  ExitCause,
  LoadProgress,
  Vitals,
} from '@qwen-supervisor/protocol/status';
import { type LoadClock, newStepClock, type StepClock } from './child-health.js';
import { NO_HISTORY, type RestartHistory, type RestartLimits } from './restart-policy.js';

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
  holdsJob: boolean;
  /** Resident memory at the first beat after the load: what the model alone needs. */
  rssAtReady: number | null;
  spawnedAtMs: number;
  /** When this incarnation became ready, or last finished a job. */
  healthySinceMs: number;
  /** Longest time that a start has taken, whether it succeeded or not. */
  startMs: number;
  /** The load under way: when it began and last moved, and how far it is. */
  load: LoadClock;
  vitals: Vitals | null;
  beatAtMs: number;
  steps: StepClock;
  /** Device memory that this incarnation holds, or the one before held; bytes, 0 on the CPU. */
  deviceBytes: number;
  /** Why we end it: planned, or the cause of the exit that is to come. */
  stopCause: 'planned' | ExitCause | null;
  /** A planned stop that is followed by a start: why. */
  restartReason: string | null;
  /** To be restarted when its job has ended: why. */
  drainReason: string | null;
  /** Next moment at which `tick` has something to do; null if only events can move this child. */
  deadlineMs: number | null;
}

export interface ChildLimits extends RestartLimits {
  stopMs: number;
  loadStallMs: number;
  loadLimitMs: number;
  /** No sign of life for so long: hung. */
  beatLimitMs: number;
  /** A step may always take so long. */
  stepLimitMs: number;
  /** Resident memory above which the child is restarted when it is idle, and at once; bytes, null for no limit. */
  softBytes: number | null;
  hardBytes: number | null;
}

export type ChildEvent =
  | { type: 'start' }
  | { type: 'spawned'; pid: number }
  | { type: 'connected' }
  | { type: 'progress'; progress: LoadProgress }
  /** `msPerToken`: of a denoising step at the warm-up; 0 for a child that has none. */
  | { type: 'ready'; msPerToken: number }
  | { type: 'assigned'; tokens: number }
  /** The attempt has begun after `step`: from here on its step counter tells how it gets on. */
  | { type: 'begun'; step: number }
  | { type: 'idle' }
  | { type: 'beat'; vitals: Vitals }
  | { type: 'fatal'; error: ErrorObject; permanent: boolean }
  | { type: 'exited'; code: number | null; signal: string | null; oomKilled: boolean; at: string; random: number }
  /** The device memory that the child holds now that it is ready. */
  | { type: 'holds'; bytes: number }
  /** Whether the memory of the process before is back; `holder` names who has it if not. */
  | { type: 'memory'; free: boolean; holder: string | null }
  | { type: 'restart'; reason: string }
  /** A stopped child is wanted again. */
  | { type: 'wanted'; reason: string }
  | { type: 'stop' }
  /** The supervisor itself stood still for so long: nobody else is to blame for the silence. */
  | { type: 'paused'; ms: number }
  | { type: 'tick' };

export type ChildEffect =
  | { type: 'spawn'; name: ChildName; incarnation: number }
  /** Ask over IPC. */
  | { type: 'ask-stop'; name: ChildName }
  /** SIGKILL to the process group; `tree` also to every descendant that left it. */
  | { type: 'kill'; name: ChildName; incarnation: number; tree: boolean }
  /** Look whether the device's memory is free again. */
  | { type: 'probe-memory'; name: ChildName };

export type ChildStep = { child: Child; effects: ChildEffect[] };

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
    holdsJob: false,
    rssAtReady: null,
    spawnedAtMs: 0,
    healthySinceMs: 0,
    startMs: 0,
    load: { startedMs: 0, movedAtMs: 0, progressedAtMs: 0, share: 0, component: '' },
    vitals: null,
    beatAtMs: 0,
    steps: newStepClock(0, 0),
    deviceBytes: 0,
    stopCause: null,
    restartReason: null,
    drainReason: null,
    deadlineMs: null,
  };
}

/** Signals that no process sends itself: an operator did, or the kernel for want of memory. */
const OUTSIDE_SIGNALS = new Set(['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT']);

/** How an exit of this child, seen now, came about. */
export function causeOf(
  child: Child,
  exit: { code: number | null; signal: string | null; oomKilled: boolean },
): ExitCause | 'planned' {
  if (child.stopCause !== null) return child.stopCause;
  if (exit.signal === 'SIGKILL' && exit.oomKilled) return 'oom-killed';
  if (exit.signal !== null && OUTSIDE_SIGNALS.has(exit.signal)) return 'killed';
  return exit.code === 0 ? 'clean' : 'crashed';
}

/** What is seen of an exit, in words. */
export function describeExit(
  { code, signal }: { code: number | null; signal: string | null },
  cause: ExitCause,
): string {
  if (cause === 'oom-killed') return 'killed by the kernel, which was out of memory';
  if (code === null && signal === null) return 'the process could not be spawned';
  return signal === null ? `exited with code ${code}` : `ended by ${signal}`;
}
