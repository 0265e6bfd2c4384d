/** The one truth about jobs and processes, as the server has told it. */
import type { ModelAnswer, SnapshotAnswer } from '@qwen-supervisor/protocol/answers';
import type { Job } from '@qwen-supervisor/protocol/job';
import type { Crash, SystemStatus } from '@qwen-supervisor/protocol/status';

/** `text`: the prompt is read, or the model's parts are being got; `decoding`: all steps are made. */
export type Phase = 'text' | 'drawing' | 'decoding';

export interface Running {
  job: Job;
  phase: Phase;
  /** PNG, base64. */
  preview: string | null;
  /** By the server's clock: when the time that is left was told, and when the last step was. */
  toldAtMs: number;
  stepAtMs: number | null;
}

export interface LiveState {
  version: string;
  role: SnapshotAnswer['role'];
  /** Of the server's clock: how far it is before ours. */
  clockAheadMs: number;
  status: SystemStatus;
  model: ModelAnswer;
  /** One of each worker that draws; the first was begun first. */
  running: readonly Running[];
  /** Ids of jobs that are drawn, of which nothing more is known. */
  strangers: readonly string[];
  /** In the order in which they will be drawn; those that are known. */
  queue: readonly Job[];
  /** Those that have ended, newest first. */
  ended: readonly Job[];
  /** Newest first. */
  crashes: readonly Crash[];
  /** When the load last got on, by the server's clock. */
  loadMovedAtMs: number;
  /** Seconds of the last steps, oldest first. */
  stepSeconds: readonly number[];
  /** How many waited, each time that changed. */
  queuedHistory: readonly { atMs: number; queued: number }[];
}

export function fromSnapshot(snapshot: SnapshotAnswer, nowMs: number, before: LiveState | null): LiveState {
  const serverMs = Date.parse(snapshot.serverTime);
  const { queued } = snapshot.status.queue;
  return {
    version: snapshot.version,
    role: snapshot.role,
    clockAheadMs: serverMs - nowMs,
    status: snapshot.status,
    model: snapshot.models[0] as ModelAnswer,
    running: snapshot.running.map((job) => ({
      job,
      phase: phaseOf(job),
      preview: snapshot.previews[job.id] ?? null,
      toldAtMs: serverMs,
      stepAtMs: null,
    })),
    strangers: [],
    queue: snapshot.queue,
    ended: snapshot.ended,
    crashes: snapshot.crashes,
    loadMovedAtMs: serverMs,
    stepSeconds: before?.stepSeconds ?? [],
    queuedHistory: [...(before?.queuedHistory ?? []), { atMs: serverMs, queued }].slice(-240),
  };
}

export function phaseOf({ step, steps, resumedAtStep }: Job): Phase {
  if (step >= steps) return 'decoding';
  return step > (resumedAtStep ?? 0) ? 'drawing' : 'text';
}
