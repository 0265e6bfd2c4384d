/** What happens in the system, in order: the stream behind `events -f` and every page. */
import type { JobEvent } from './job.js';
import type { ChildName, ChildState, Crash, LoadProgress, MachineStatus, WorkerName } from './status.js';

export type SystemEvent =
  | JobEvent
  | { type: 'child'; name: ChildName; state: ChildState; pid: number | null; reason: string }
  | { type: 'load'; name: WorkerName; progress: LoadProgress }
  | { type: 'crash'; crash: Crash }
  /** Finished pictures are starred, in the trash, back from it, or gone for ever. */
  | { type: 'pictures'; ids: string[]; change: PictureChange }
  /** Of those that share the queue one has come, gone, or changed: so they all are now. */
  | { type: 'machines'; machines: MachineStatus[] };

export type PictureChange = 'starred' | 'unstarred' | 'trashed' | 'restored' | 'removed';

/** An event as it goes out. */
export type NumberedEvent = SystemEvent & {
  /** Of the supervisor that it comes from. */
  run: string;
  /** Counts the events of this run of the supervisor, from 1. */
  seq: number;
  /** ISO 8601. */
  at: string;
};
