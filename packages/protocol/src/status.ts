/** What the system says about itself: the same object in `status --json`, `GET /api/v1/status` and on a page. */
import type { ChosenDevice } from './device.js';

export const CHILD_STATES = [
  'stopped',
  'starting',
  'loading',
  'ready',
  'busy',
  'stopping',
  'backing-off',
  'blocked',
  'failed',
] as const;
export type ChildState = (typeof CHILD_STATES)[number];

/** Whether a child in this state does its work: the worker can draw, the API serves. */
export function isUp(state: ChildState | undefined): boolean {
  return state === 'ready' || state === 'busy';
}

/** What a child is for: a worker draws, the API serves. */
export type ChildRole = 'inference' | 'api';
/** A worker for each device: the first is `inference`, the others `inference-2`, `inference-3`, … */
export type WorkerName = 'inference' | `inference-${number}`;
export type ChildName = WorkerName | 'api';
export const CHILD_NAME_PATTERN = /^(?:api|inference(?:-(?:[2-9]|[1-9]\d))?)$/;
/** Most workers of one machine. */
export const WORKERS_MAX = 16;

/** Of the first `count` workers, one at least. */
export function workerNames(count: number): WorkerName[] {
  const others = Array.from({ length: count - 1 }, (_, i): WorkerName => `inference-${i + 2}`);
  return ['inference', ...others];
}

export function roleOfChild(name: ChildName): ChildRole {
  return name === 'api' ? 'api' : 'inference';
}

/** How an unplanned exit came about. */
export type ExitCause =
  /** A signal from outside that we did not send: an operator's. Never the child's fault. */
  | 'killed'
  /** Exit code 0 that nobody had asked for. */
  | 'clean'
  /** Any other end by itself: exit code, abort, segmentation fault. */
  | 'crashed'
  /** Killed by us: no sign of life, or none of progress. */
  | 'hung'
  /** Killed by us: it used more memory than the operator allows. */
  | 'memory-limit'
  /** It said that its load had failed. */
  | 'load-failed'
  /** Killed by us: its load made no progress or took too long. */
  | 'stalled'
  /** Killed by the kernel, which was out of memory. */
  | 'oom-killed'
  /** It said that its device had no memory left. */
  | 'device-memory'
  /** It said that its device is gone, or cannot be used. */
  | 'device'
  /** It said that a new process would meet the same fault. */
  | 'permanent';

/** How a process ended. */
export interface ChildExit {
  code: number | null;
  signal: string | null;
  /** Null for an exit that was asked for. */
  cause: ExitCause | null;
  /** ISO 8601. */
  at: string;
}

export interface ChildStatus {
  name: ChildName;
  pid: number | null;
  state: ChildState;
  /** Unplanned exits since the supervisor started. */
  restarts: number;
  /** Memory of its own at its last sign of life; null without one. */
  rssBytes: number | null;
  /** Memory of a graphics device that it held when it became ready; 0 on the CPU. */
  deviceBytes: number;
  /** What a worker computes on; null for the API. */
  device: ChosenDevice | null;
  /** Of the load under way; null without one. */
  load: LoadProgress | null;
  /** Id of the job in its hands. */
  job: string | null;
  lastExit: ChildExit | null;
  /** Why the child is in this state, in words. */
  reason: string;
}

/** What a child measures of itself, once a second. */
export interface Vitals {
  /** Memory that is its own, without the files that it maps. */
  rssBytes: number;
  /** Read from disks so far. */
  readBytes: number;
  /** Processor time used so far. */
  cpuSeconds: number;
  /** Completed denoising steps of the current job. */
  step: number;
  /** Of the step after those, 0 to 1. */
  stepShare: number;
  /** Counts whatever it has completed: runs of networks, layers, pieces of files. */
  work: number;
}

/** One unplanned exit, as it is kept. */
export interface Crash {
  /** ISO 8601. */
  at: string;
  child: ChildName;
  pid: number | null;
  cause: ExitCause;
  code: number | null;
  signal: string | null;
  /** What the child was doing. */
  during: ChildState;
  uptimeSeconds: number;
  /** At the last beat; null if there was none. */
  rssBytes: number | null;
  /** The job in its hands. */
  job: { id: string; attempt: number; step: number } | null;
  /** What happened, and what was decided. */
  reason: string;
  /** Where its threads stood, of one that hung; none of any other. */
  threads: string[];
  /** The last lines of its output. */
  tail: string[];
}

export const MODEL_COMPONENTS = ['tokenizer', 'text_encoder', 'transformer', 'vae', 'warm-up'] as const;
export type ModelComponent = (typeof MODEL_COMPONENTS)[number];

export interface LoadProgress {
  component: ModelComponent;
  bytesDone: number;
  bytesTotal: number;
}

export interface ModelStatus {
  /** Name of the checkpoint folder, or of the model where we know it. */
  id: string;
  folder: string;
  state: 'unloaded' | 'loading' | 'ready';
  /** The component that is being loaded; null unless loading. */
  component: ModelComponent | null;
  bytesDone: number;
  bytesTotal: number;
  /** Seconds until the load is done, at the rate so far; null unless loading, or before any byte. */
  etaSeconds: number | null;
  /** Seconds that the last complete load took; null before. */
  loadSeconds: number | null;
}

export interface QueueStatus {
  queued: number;
  running: number;
  /** Id of the job in a worker's hands; of several the one that was begun first. */
  current: string | null;
  /** Why the queue stands still although a worker is up: the disk, mostly. Null if nothing is wrong. */
  problem: string | null;
}

/** How a machine is that shares the queue: `silent` has not been heard of, and may be dead or cut off. */
export const MACHINE_STATES = ['up', 'silent', 'stopped'] as const;
export type MachineState = (typeof MACHINE_STATES)[number];

/** A machine as it tells the others of itself. */
export interface MachineReport {
  version: string;
  /** Where its own API is reached, as it knows it. */
  url: string;
  /** Id of its model. */
  model: string;
  workers: { name: WorkerName; state: ChildState; device: string; job: string | null; reason: string }[];
}

/** One of the machines that draw from one queue. */
export interface MachineStatus extends MachineReport {
  /** Its host name, with something behind it where another has the same. */
  name: string;
  state: MachineState;
  /** It takes no more jobs: an operator has said so. */
  isDrained: boolean;
  /** Whether it is the one that answers. */
  isHere: boolean;
  /** ISO 8601, by the clock of the database: when it was last heard of. */
  seenAt: string;
}

/** Another one that draws, or will again: its worker may be loading, and what it draws it ends also when drained. */
export function drawsElsewhere({ isHere, isDrained, state, workers }: MachineStatus): boolean {
  return !isHere && state === 'up' && workers.some((one) => one.job !== null || (!isDrained && one.state !== 'failed'));
}

export interface SystemStatus {
  supervisor: { pid: number; version: string; uptimeSeconds: number; url: string };
  /** Memory of the whole machine, and of that what can be had without taking it from anybody. */
  machine: { memoryBytes: number; availableBytes: number };
  /** The workers, then the API. */
  children: ChildStatus[];
  /** Of the worker that is furthest: see `mainWorker`. */
  device: ChosenDevice;
  model: ModelStatus;
  queue: QueueStatus;
  /** All that draw from the same queue, this one among them; none where the queue is this machine's own. */
  machines: MachineStatus[];
}

/** How near a worker in this state is to a picture, the nearest first. */
const NEARNESS: ChildState[] = [
  'busy',
  'ready',
  'loading',
  'starting',
  'stopping',
  'stopped',
  'backing-off',
  'blocked',
  'failed',
];

/** The worker that decides when a picture can be drawn: the one that is furthest, of several alike the first. */
export function mainWorker<W extends Pick<ChildStatus, 'name' | 'state' | 'load'>>(children: readonly W[]): W {
  const workers = children.filter(({ name }) => name !== 'api');
  const byState = (a: W, b: W) => NEARNESS.indexOf(a.state) - NEARNESS.indexOf(b.state);
  const [main] = workers.toSorted((a, b) => byState(a, b) || loadedShare(b) - loadedShare(a));
  return main as W;
}

function loadedShare({ load }: Pick<ChildStatus, 'load'>): number {
  return load === null ? 0 : load.bytesDone / Math.max(1, load.bytesTotal);
}
