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
  /** By the server's clock: when the time that is left was told. */
  toldAtMs: number;
}

export interface LiveState {
  version: string;
  role: SnapshotAnswer['role'];
  /** Of the server's clock: how far it is before ours. */
  clockAheadMs: number;
  status: SystemStatus;
  model: ModelAnswer;
  running: Running | null;
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
  lastStepAtMs: number | null;
  /** How many waited, each time that changed. */
  queuedHistory: readonly { atMs: number; queued: number }[];
}

export function fromSnapshot(snapshot: SnapshotAnswer, nowMs: number, before: LiveState | null): LiveState {
  const serverMs = Date.parse(snapshot.serverTime);
  const { running: job } = snapshot;
  const { queued } = snapshot.status.queue;
  return {
    version: snapshot.version,
    role: snapshot.role,
    clockAheadMs: serverMs - nowMs,
    status: snapshot.status,
    model: snapshot.models[0] as ModelAnswer,
    running: job && { job, phase: phaseOf(job), preview: snapshot.preview, toldAtMs: serverMs },
    queue: snapshot.queue,
    ended: snapshot.ended,
    crashes: snapshot.crashes,
    loadMovedAtMs: serverMs,
    stepSeconds: before?.stepSeconds ?? [],
    lastStepAtMs: null,
    queuedHistory: [...(before?.queuedHistory ?? []), { atMs: serverMs, queued }].slice(-240),
  };
}

export function phaseOf({ step, steps, resumedAtStep }: Job): Phase {
  if (step >= steps) return 'decoding';
  return step > (resumedAtStep ?? 0) ? 'drawing' : 'text';
}
