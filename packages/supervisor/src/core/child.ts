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
import { type LoadClock, NO_LOAD, newStepClock, type StepClock } from './child-health.js';
import { NO_HISTORY, type RestartHistory, type RestartLimits } from './restart-policy.js';

/**
 * Where a child is in its life. `stopping`: asked to end. `dying`: it has said that it cannot go on, and exits by
 * itself. `killing`: SIGKILL was sent, its exit is awaited. From outside the three are one.
 */
export type Phase = ChildState | 'dying' | 'killing';

/** What an end that is under way leads to: a stop, a start with a reason, or whatever is decided about the cause. */
export type Ending =
  | { to: 'stop' }
  | { to: 'restart'; reason: string }
  | { to: 'judgement'; cause: ExitCause; reason: string };

export interface Child {
  name: ChildName;
  phase: Phase;
  /** Counts the processes spawned for this child. */
  incarnation: number;
  pid: number | null;
  /** Unplanned exits. */
  restarts: number;
  /** Incarnations that became ready. */
  timesReady: number;
  lastExit: ChildExit | null;
  reason: string;
  history: RestartHistory;
  spawnedAtMs: number;
  /** When this incarnation became ready, or last finished a job; null until it is ready. */
  healthySinceMs: number | null;
  /** Longest time that a start has taken, whether it succeeded or not. */
  startMs: number;
  /** The load under way: when it began and last moved, and how far it is. */
  load: LoadClock;
  vitals: Vitals | null;
  beatAtMs: number;
  /** Resident memory at the first beat after the load: what the model alone needs. */
  rssAtReady: number | null;
  steps: StepClock;
  /** What this incarnation holds of a device, or the one before held; zeros on the CPU. */
  device: DeviceMemory;
  /** Why it is to be restarted when its job has ended; only while busy. */
  drain: string | null;
  /** Only while stopping, dying or killing. */
  ending: Ending | null;
  /** What it did before it was stopping, dying or killing. */
  during: ChildState;
  /** Next moment at which `tick` has something to do; null if only events can move this child. */
  deadlineMs: number | null;
  /** How often the deadline was looked at without a sign of life since. */
  looks: number;
}

/** Bytes: what a process holds, and what was free beside it. */
export interface DeviceMemory {
  heldBytes: number;
  freeBytes: number;
}

export interface ChildLimits extends RestartLimits {
  stopMs: number;
  loadStallMs: number;
  loadLimitMs: number;
  /** No sign of life for this long: hung. */
  beatLimitMs: number;
  /** A step may always take this long. */
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
  /** Its job has ended. */
  | { type: 'idle' }
  | { type: 'beat'; vitals: Vitals }
  | { type: 'fatal'; error: ErrorObject; permanent: boolean }
  | { type: 'exited'; code: number | null; signal: string | null; oomKilled: boolean; at: string; random: number }
  /** The device memory that the child holds now that it is ready, and what is free beside it. */
  | { type: 'holds'; memory: DeviceMemory }
  /** What is free now; null where the device does not tell. `holder` names who has the most of the rest. */
  | { type: 'memory'; freeBytes: number | null; holder: string | null }
  | { type: 'restart'; reason: string }
  /** A stopped child is wanted again. */
  | { type: 'wanted'; reason: string }
  /** `forGood`: everything stops. */
  | { type: 'stop'; forGood: boolean }
  | { type: 'tick' };

export type ChildEffect =
  | { type: 'spawn'; name: ChildName; incarnation: number }
  /** Ask over IPC. `forGood`: nothing will take its place. */
  | { type: 'ask-stop'; name: ChildName; forGood: boolean }
  /**
   * SIGKILL to the process group; `tree` also to every descendant that left it. `noteThreads`: first keep where its
   * threads stand, which is all that can be known of one that hangs.
   */
  | { type: 'kill'; name: ChildName; incarnation: number; tree: boolean; noteThreads: boolean }
  /** Its device does not work, as `reason` says: what is spawned next is to be on another. */
  | { type: 'use-next-device'; name: ChildName; reason: string }
  /** See what the ready child holds of a device. */
  | { type: 'measure-device'; name: ChildName; pid: number; incarnation: number }
  /** Look whether the device's memory is free again. */
  | { type: 'probe-memory'; name: ChildName; incarnation: number }
  /** An event that this phase cannot see unless somebody breaks the protocol; nothing has changed. */
  | { type: 'note-impossible'; name: ChildName; phase: Phase; event: ChildEvent['type'] };

export type ChildStep = { child: Child; effects: ChildEffect[] };
/** The event of a type. */
export type Of<T extends ChildEvent['type']> = Extract<ChildEvent, { type: T }>;

export const NO_DEVICE: DeviceMemory = { heldBytes: 0, freeBytes: 0 };

export function newChild(name: ChildName): Child {
  return {
    name,
    phase: 'stopped',
    incarnation: 0,
    pid: null,
    restarts: 0,
    timesReady: 0,
    lastExit: null,
    reason: 'not started',
    history: NO_HISTORY,
    spawnedAtMs: 0,
    healthySinceMs: null,
    startMs: 0,
    load: NO_LOAD,
    vitals: null,
    beatAtMs: 0,
    rssAtReady: null,
    steps: newStepClock(0, 0),
    device: NO_DEVICE,
    drain: null,
    ending: null,
    during: 'stopped',
    deadlineMs: null,
    looks: 0,
  };
}

export const stay = (child: Child): ChildStep => ({ child, effects: [] });

/** A deadline that nobody has looked at yet. */
export const until = (deadlineMs: number) => ({ deadlineMs, looks: 0 });

export function isDue({ deadlineMs }: Child, atMs: number): boolean {
  return deadlineMs !== null && atMs >= deadlineMs;
}

/** As everybody outside sees it. */
export function stateOf({ phase }: Child): ChildState {
  return phase === 'dying' || phase === 'killing' ? 'stopping' : phase;
}

/** What it does, or did until it began to end. */
export function activityOf({ phase, during }: Child): ChildState {
  return phase === 'stopping' || phase === 'dying' || phase === 'killing' ? during : phase;
}

/** Signals that no process sends itself: an operator did, or the kernel for want of memory. */
const OUTSIDE_SIGNALS = new Set(['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT']);

/** How an exit of this child, seen now, came about. */
export function causeOf(
  { ending }: Child,
  exit: { code: number | null; signal: string | null; oomKilled: boolean },
): ExitCause | 'planned' {
  if (ending) return ending.to === 'judgement' ? ending.cause : 'planned';
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
