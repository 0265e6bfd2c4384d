/** How long things will take, from what was measured. Pure. */
import { isUp } from '@qwen-supervisor/protocol/status';
import type { State } from './supervisor.js';

/** Guesses until something was measured, seconds. */
const LOAD_GUESS = 60;
const JOB_GUESS = 30;

/** Seconds until the load is done, at the rate so far; null where nothing can be said. */
export function loadEta(state: State, atMs: number): number | null {
  const { state: worker, load } = state.children.inference;
  if (worker !== 'loading' || load.share === 0) return null;
  const elapsed = (atMs - load.startedMs) / 1000;
  return Math.round(elapsed * (1 / load.share - 1) * 10) / 10;
}

/** Seconds until the next job leaves the queue; at least 1. */
export function secondsUntilClaim(state: State, atMs: number): number {
  const { inference } = state.children;
  const jobSeconds = state.jobSeconds ?? JOB_GUESS;
  const waitMs = inference.deadlineMs === null ? 0 : Math.max(0, inference.deadlineMs - atMs);
  const startSeconds = inference.startMs > 0 ? inference.startMs / 1000 : LOAD_GUESS;
  const remaining = state.current ? 1 - state.current.step / state.current.job.steps : 0;
  const seconds = isUp(inference.state)
    ? jobSeconds * remaining
    : inference.state === 'backing-off'
      ? waitMs / 1000 + startSeconds
      : (loadEta(state, atMs) ?? startSeconds);
  return Math.max(1, Math.ceil(seconds));
}
