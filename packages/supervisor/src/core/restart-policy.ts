/**
 * Whether and when a child that died is started again. Pure: time and chance arrive as arguments.
 *
 * Words as in OTP: a restart intensity of `max` charged exits within `windowMs`; beyond it the child is given up.
 */
import type { ExitCause } from '@qwen-supervisor/protocol/status';

export interface RestartLimits {
  /** Null: never given up, but for a permanent fault. */
  max: number | null;
  windowMs: number;
  /** Whether it can be started on another device where its own does not work. */
  hasNextDevice: boolean;
  /** Longest delay between two starts. */
  delayCapMs: number;
}

export interface RestartHistory {
  /** Times of charged exits, oldest first. */
  chargedAtMs: number[];
  /** Unplanned exits in a row without a healthy time between. */
  streak: number;
  /** Of those in a row, the ones for want of device memory, or of the device itself. */
  deviceStreak: number;
  /** Deaths laid to jobs since the last job that ended well. */
  jobDeaths: number;
}

export type RestartDecision =
  | { kind: 'restart'; delayMs: number; reason: string }
  /** At once, on another device. */
  | { kind: 'next-device'; reason: string }
  | { kind: 'give-up'; reason: string };

export interface UnplannedExit {
  cause: ExitCause;
  /** In words. */
  what: string;
  /** The child had become ready in this incarnation. */
  wasReady: boolean;
  /** It had a job in its hands. */
  heldJob: boolean;
  /** Longest time that a start of this child has taken so far. */
  startMs: number;
  atMs: number;
  /** In [0, 1). */
  random: number;
}

/** How a cause is treated. */
interface Row {
  /** Counts against the budget. */
  charged: boolean;
  /** A child that had been ready is started again at once the first time. */
  atOnce: boolean;
  /** First delay; it doubles with every further exit in a row. */
  firstMs: number;
}

const ROWS: Record<Exclude<ExitCause, 'permanent'>, Row> = {
  killed: { charged: false, atOnce: true, firstMs: 500 },
  clean: { charged: true, atOnce: true, firstMs: 500 },
  crashed: { charged: true, atOnce: true, firstMs: 500 },
  hung: { charged: true, atOnce: true, firstMs: 500 },
  'memory-limit': { charged: true, atOnce: true, firstMs: 500 },
  // The next load costs as much as the one that failed.
  'load-failed': { charged: true, atOnce: false, firstMs: 2000 },
  stalled: { charged: true, atOnce: false, firstMs: 2000 },
  // Whoever took the memory needs time to give it back.
  'oom-killed': { charged: true, atOnce: false, firstMs: 1000 },
  'device-memory': { charged: true, atOnce: false, firstMs: 5000 },
  device: { charged: true, atOnce: true, firstMs: 1000 },
};

/** A child that was ready when it was killed from outside is back within a second. */
const DELAY_KILLED_CAP_MS = 400;
/** A quarter more or less. */
const JITTER = 0.25;
/** A device that fails is tried once more, no further where there is another. */
const DEVICE_MAX = 2;
/**
 * This many deaths in a row are laid to jobs (two to each) and not charged. Beyond that the worker is at fault, and
 * would eat the whole queue.
 */
const JOB_DEATHS_MAX = 6;

export const NO_HISTORY: RestartHistory = { chargedAtMs: [], streak: 0, deviceStreak: 0, jobDeaths: 0 };

/** After a job that ended well the next death is a first one; the budget keeps its window. */
export function afterSuccess(history: RestartHistory): RestartHistory {
  return { ...history, streak: 0, deviceStreak: 0, jobDeaths: 0 };
}

export function decideRestart(
  history: RestartHistory,
  exit: UnplannedExit,
  limits: RestartLimits,
): { decision: RestartDecision; history: RestartHistory } {
  const { cause, atMs } = exit;
  if (cause === 'permanent') return { decision: { kind: 'give-up', reason: exit.what }, history };
  const isOfDevice = cause === 'device' || cause === 'device-memory';
  const deviceStreak = isOfDevice ? history.deviceStreak + 1 : 0;
  if (limits.hasNextDevice && deviceStreak >= DEVICE_MAX) {
    const reason = `${exit.what}; ${deviceStreak} times in a row, going on with another device`;
    return { decision: { kind: 'next-device', reason }, history: NO_HISTORY };
  }
  const row = ROWS[cause];
  const isLaidToJob = exit.heldJob && row.charged;
  const jobDeaths = history.jobDeaths + (isLaidToJob ? 1 : 0);
  const isCharged = limits.max !== null && row.charged && (!isLaidToJob || jobDeaths > JOB_DEATHS_MAX);
  const windowMs = widenedWindowMs(limits, exit);
  const recent = history.chargedAtMs.filter((at) => at > atMs - windowMs);
  const next: RestartHistory = {
    chargedAtMs: isCharged ? [...recent, atMs] : recent,
    streak: history.streak + 1,
    deviceStreak,
    jobDeaths,
  };
  const giveUp = (why: string) => ({
    decision: { kind: 'give-up' as const, reason: `${exit.what}; ${why}, given up` },
    history: next,
  });
  // The next load would fail alike.
  if (cause === 'device-memory' && deviceStreak >= DEVICE_MAX) return giveUp(`${deviceStreak} times in a row`);
  // Its delays are longer than the window.
  if (limits.max !== null && deviceStreak > limits.max) return giveUp(`${deviceStreak} times in a row`);
  if (limits.max !== null && isCharged && next.chargedAtMs.length > limits.max)
    return giveUp(`${next.chargedAtMs.length} failures within ${Math.round(windowMs / 1000)} s`);
  const delayMs = restartDelay(next.streak, row, exit, limits);
  const reason = `${exit.what}; starting again ${delayMs === 0 ? 'at once' : `in ${(delayMs / 1000).toFixed(1)} s`}`;
  return { decision: { kind: 'restart', delayMs, reason }, history: next };
}

/** Wide enough that a child whose starts are slow can use its budget up. */
function widenedWindowMs({ max, windowMs }: RestartLimits, { startMs }: UnplannedExit): number {
  return max === null ? windowMs : Math.max(windowMs, 2 * (max + 1) * startMs);
}

/**
 * At once after the first death of a healthy child, else the cause's first delay, doubled with each in a row, up to
 * the cap.
 */
function restartDelay(streak: number, row: Row, exit: UnplannedExit, limits: RestartLimits): number {
  if (streak === 1 && exit.wasReady && row.atOnce) return 0;
  const jitter = 1 - JITTER + 2 * JITTER * exit.random;
  const curve = row.firstMs * 2 ** Math.min(streak - 1, 30) * jitter;
  const cap = exit.cause === 'killed' && exit.wasReady ? DELAY_KILLED_CAP_MS : limits.delayCapMs;
  return Math.round(Math.min(curve, cap));
}
