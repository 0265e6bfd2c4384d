/** Busy or dead: what a child's own measurements say. Pure. */
import type { Vitals } from '@qwen-supervisor/protocol/status';

/** Growth of the resident memory from one beat to the next that counts as a sign of work, bytes. */
const RSS_GROWTH_MIN = 1 << 20;
/** Processor time from one beat to the next that counts as one, as a share of the time between. */
const CPU_SHARE_MIN = 0.05;
/** A busy child beats every second. Time beyond this between two beats was not observed, and is nobody's idleness. */
const OBSERVED_MAX_MS = 2000;
/** What is to be completed may take this many times as long as the slowest before, for its size. */
const STEP_SLACK = 10;

/** The part of the time between two beats in which nobody could watch. */
export function unseenMs(elapsedMs: number): number {
  return Math.max(0, elapsedMs - OBSERVED_MAX_MS);
}

/** Whether the process worked between two beats: it read, grew or computed. */
export function hasWorked(before: Vitals | null, now: Vitals, elapsedMs: number): boolean {
  if (before === null) return true;
  return (
    now.readBytes > before.readBytes ||
    now.rssBytes > before.rssBytes + RSS_GROWTH_MIN ||
    now.cpuSeconds - before.cpuSeconds > (CPU_SHARE_MIN * elapsedMs) / 1000
  );
}

/** Whether it got on with what has an end, its files and its memory; processor time alone may be a loop. */
export function hasProgressed(before: Vitals | null, now: Vitals): boolean {
  return before !== null && (now.readBytes > before.readBytes || now.rssBytes > before.rssBytes + RSS_GROWTH_MIN);
}

export interface LoadClock {
  startedMs: number;
  /** When the load last gave a sign of work. */
  movedAtMs: number;
  /** When it last reported bytes, read or grew. */
  progressedAtMs: number;
  /** Share that is done, 0 to 1. */
  share: number;
  component: string;
}

export const NO_LOAD: LoadClock = { startedMs: 0, movedAtMs: 0, progressedAtMs: 0, share: 0, component: '' };

export interface StepClock {
  /** Completed steps at the last beat; null until the current job has begun. */
  step: number | null;
  /** What was completed at the last beat, parts of a step among it. */
  work: number;
  /** When something was last completed. */
  movedAtMs: number;
  /** When the process was last seen working. */
  workedAtMs: number;
  /** Tokens of the current job's picture. */
  tokens: number;
  /** Between two completions, the slowest so far, per token; the first is a pass of the warm-up. */
  msPerToken: number;
}

export function newStepClock(msPerToken: number, atMs: number): StepClock {
  return { step: null, work: 0, movedAtMs: atMs, workedAtMs: atMs, tokens: 1, msPerToken };
}

/** The clock after a beat. */
export function tickStepClock(
  clock: StepClock,
  before: Vitals | null,
  now: Vitals,
  elapsedMs: number,
  atMs: number,
): StepClock {
  const unseen = unseenMs(elapsedMs);
  const workedAtMs = hasWorked(before, now, elapsedMs) ? atMs : clock.workedAtMs + unseen;
  const standsSinceMs = clock.movedAtMs + unseen;
  const completed = Math.max(clock.step === null ? 0 : now.step - clock.step, now.work - clock.work);
  // Weights that are read or taken in, in one long call, are no pace, but they are movement.
  const isMoving = hasProgressed(before, now);
  if (completed <= 0) return { ...clock, workedAtMs, movedAtMs: isMoving ? atMs : standsSinceMs };
  const step = clock.step === null ? null : Math.max(clock.step, now.step);
  const moved = { ...clock, step, work: now.work, workedAtMs, movedAtMs: atMs };
  // A load that comes between, the text and the tiles have nothing to do with the picture's size.
  const isOfStep = now.step > (clock.step ?? 0) || now.stepShare > (before?.stepShare ?? 0);
  if (step === null || !isOfStep) return moved;
  const eachMs = (atMs - standsSinceMs) / completed;
  // Never faster: after this process stood still several beats are read at once, and seem to have come in no time.
  return { ...moved, msPerToken: Math.max(clock.msPerToken, eachMs / clock.tokens) };
}

/**
 * Why the worker is taken for dead although it beats; null if it is not. One that works may take ten times as long
 * for a step as ever before; one that does nothing may not.
 */
export function hangReason(clock: StepClock, stepLimitMs: number, atMs: number): string | null {
  const standingMs = atMs - clock.movedAtMs;
  const idleMs = atMs - clock.workedAtMs;
  const expectedMs = clock.msPerToken * clock.tokens;
  if (idleMs > stepLimitMs && standingMs > stepLimitMs)
    return `no step, and nothing read or computed, for ${seconds(idleMs)} s`;
  if (standingMs > Math.max(stepLimitMs, STEP_SLACK * expectedMs))
    return `no step for ${seconds(standingMs)} s, expected after ${(expectedMs / 1000).toFixed(1)} s`;
  return null;
}

/**
 * When a load is given up: after the stall limit, within a cap. The cap is the load limit, or three times what the
 * rate so far predicts if that is more: a load that goes on slowly but steadily is never cut off.
 */
export function loadDeadline(load: LoadClock, limits: { loadStallMs: number; loadLimitMs: number }): number {
  const elapsedMs = load.progressedAtMs - load.startedMs;
  const predictedMs = load.share > 0 ? elapsedMs / load.share : 0;
  return Math.min(load.movedAtMs + limits.loadStallMs, load.startedMs + Math.max(limits.loadLimitMs, 3 * predictedMs));
}

function seconds(ms: number): number {
  return Math.round(ms / 1000);
}
