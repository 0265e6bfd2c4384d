/**
 * Whether and when a child that died is started again. Pure: time and chance arrive as arguments.
 *
 * Words as in OTP: a restart intensity of `max` charged exits within `windowMs`; beyond it the child is given up.
 */

/** How an unplanned exit came about. */
export type ExitCause =
  /** A signal from outside that we did not send: an operator, or the kernel. Never the child's fault. */
  | 'killed'
  /** Any other end by itself: exit code, abort, segmentation fault. */
  | 'crashed'
  /** Killed by us: it gave no sign of life. */
  | 'hung'
  /** Killed by us: its load made no progress or took too long. */
  | 'stalled'
  /** It said that a new process would meet the same fault. */
  | 'permanent';

export interface RestartLimits {
  max: number;
  windowMs: number;
  /** Longest delay between two starts. */
  delayCapMs: number;
}

export interface RestartHistory {
  /** Times of charged exits, oldest first. */
  chargedAtMs: number[];
  /** Unplanned exits in a row without a healthy time between. */
  streak: number;
}

export type RestartDecision =
  | { kind: 'restart'; delayMs: number; reason: string }
  | { kind: 'give-up'; reason: string };

const DELAY_FIRST_MS = 500;
/** A child that was ready when it was killed from outside is back within a second. */
const DELAY_KILLED_CAP_MS = 400;
const JITTER = 0.25;

export const NO_HISTORY: RestartHistory = { chargedAtMs: [], streak: 0 };

/** `random` is in [0, 1). `wasReady`: the child had become ready in this incarnation. */
export function decideRestart(
  history: RestartHistory,
  exit: { cause: ExitCause; what: string; wasReady: boolean; atMs: number; random: number },
  limits: RestartLimits,
): { decision: RestartDecision; history: RestartHistory } {
  if (exit.cause === 'permanent') return { decision: { kind: 'give-up', reason: exit.what }, history };
  const recent = history.chargedAtMs.filter((at) => at > exit.atMs - limits.windowMs);
  const chargedAtMs = exit.cause === 'killed' ? recent : [...recent, exit.atMs];
  const streak = history.streak + 1;
  const next = { chargedAtMs, streak };
  if (chargedAtMs.length > limits.max) {
    const reason = `${exit.what}; ${chargedAtMs.length} failures within ${Math.round(limits.windowMs / 1000)} s, given up`;
    return { decision: { kind: 'give-up', reason }, history: next };
  }
  const delayMs = restartDelay(streak, exit, limits);
  const reason = `${exit.what}; starting again ${delayMs === 0 ? 'at once' : `in ${(delayMs / 1000).toFixed(1)} s`}`;
  return { decision: { kind: 'restart', delayMs, reason }, history: next };
}

/** At once after the first death of a healthy child, then 0.5 s, 1 s, 2 s, … up to the cap, each a quarter more or less. */
function restartDelay(
  streak: number,
  exit: { cause: ExitCause; wasReady: boolean; random: number },
  limits: RestartLimits,
): number {
  if (streak === 1 && exit.wasReady) return 0;
  const jitter = 1 - JITTER + 2 * JITTER * exit.random;
  const curve = DELAY_FIRST_MS * 2 ** Math.min(streak - 1, 30) * jitter;
  const cap = exit.cause === 'killed' && exit.wasReady ? DELAY_KILLED_CAP_MS : limits.delayCapMs;
  return Math.round(Math.min(curve, cap));
}
