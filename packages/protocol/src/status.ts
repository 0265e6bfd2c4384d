/** What the system says about itself: the same object in `status --json`, `GET /api/v1/status` and on a page. */

export const CHILD_STATES = [
  'stopped',
  'starting',
  'loading',
  'ready',
  'busy',
  'stopping',
  'backing-off',
  'failed',
] as const;
export type ChildState = (typeof CHILD_STATES)[number];

/** Whether a child in this state does its work: the worker can draw, the API serves. */
export function isUp(state: ChildState | undefined): boolean {
  return state === 'ready' || state === 'busy';
}

export const CHILD_NAMES = ['inference', 'api'] as const;
export type ChildName = (typeof CHILD_NAMES)[number];

/** How a process ended. */
export interface ChildExit {
  code: number | null;
  signal: string | null;
  /** ISO 8601. */
  at: string;
}

export interface ChildStatus {
  name: ChildName;
  pid: number | null;
  state: ChildState;
  /** Unplanned exits since the supervisor started. */
  restarts: number;
  lastExit: ChildExit | null;
  /** Why the child is in this state, in words. */
  reason: string;
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
  /** Seconds that the last complete load took; null before. */
  loadSeconds: number | null;
}

export interface QueueStatus {
  queued: number;
  running: number;
  /** Id of the job in a worker's hands. */
  current: string | null;
}

export interface SystemStatus {
  supervisor: { pid: number; version: string; uptimeSeconds: number; url: string };
  children: ChildStatus[];
  model: ModelStatus;
  queue: QueueStatus;
}
