/** How long things will take, from what was measured. Pure. */
import type { Eta } from '@qwen-supervisor/protocol/job';
import { workOf } from '@qwen-supervisor/protocol/job-request';
import { isUp } from '@qwen-supervisor/protocol/status';
import type { CurrentJob, State } from './supervisor.js';

/** Guesses until something was measured, seconds. */
const LOAD_GUESS = 60;
const JOB_GUESS = 30;
/** Steps of the running job after which its own pace is better than that of others. */
const OWN_PACE_STEPS = 3;
/** How far from the estimate the truth may lie, by what the estimate rests on: least and most, as factors. */
const SPREAD = { warmUp: [0.4, 2], jobs: [0.7, 1.4], ownPace: [0.9, 1.15] } as const;
/** Decoding and writing a picture, in steps. */
const FINISH_STEPS = 2;

/** Seconds until the load is done, at the rate so far; null where nothing can be said. */
export function loadEta(state: State, atMs: number): number | null {
  const { state: worker, load } = state.children.inference;
  if (worker !== 'loading' || load.share === 0) return null;
  const elapsed = (atMs - load.startedMs) / 1000;
  return round(elapsed * (1 / load.share - 1));
}

/** Seconds until the next job leaves the queue; at least 1. */
export function secondsUntilClaim(state: State, atMs: number): number {
  const { current } = state;
  const remaining = current ? (remainingMs(state, current, atMs) ?? guessMs(current)) / 1000 : 0;
  return Math.max(1, Math.ceil(isUp(state.children.inference.state) ? remaining : secondsUntilReady(state, atMs)));
}

/** When the running job will have its picture. */
export function runningEta(state: State, atMs: number): Eta | null {
  const { current } = state;
  const ms = current && remainingMs(state, current, atMs);
  if (current === null || ms === null) return null;
  const stepMs = ownStepMs(current);
  const [low, high] = stepMs === null ? spreadOf(state) : SPREAD.ownPace;
  return { low: round((low * ms) / 1000), high: round((high * ms + FINISH_STEPS * (stepMs ?? 0)) / 1000) };
}

/** When a queued job will have its picture, with so much work before it. */
export function queuedEta(state: State, atMs: number, job: { work: number; workAhead: number }): Eta | null {
  const { current, children } = state;
  const pace = msPerWork(state);
  if (pace === null || children.inference.state === 'failed') return null;
  const running = current ? (remainingMs(state, current, atMs) ?? 0) : 0;
  const ms = running + pace * (job.workAhead + job.work);
  const waitSeconds = isUp(children.inference.state) ? 0 : secondsUntilReady(state, atMs);
  const [low, high] = spreadOf(state);
  return { low: round((low * ms) / 1000 + waitSeconds), high: round((high * ms) / 1000 + waitSeconds) };
}

/** Seconds until the worker can draw: its back-off, and a start as long as the last. */
function secondsUntilReady(state: State, atMs: number): number {
  const { inference } = state.children;
  const startSeconds = inference.startMs > 0 ? inference.startMs / 1000 : LOAD_GUESS;
  const waitMs = inference.deadlineMs === null ? 0 : Math.max(0, inference.deadlineMs - atMs);
  if (inference.state === 'backing-off') return waitMs / 1000 + startSeconds;
  return loadEta(state, atMs) ?? startSeconds;
}

function remainingMs(state: State, current: CurrentJob, atMs: number): number | null {
  const { job, step, lastStepAtMs } = current;
  const left = job.steps - step;
  const stepMs = ownStepMs(current);
  if (stepMs !== null) return Math.max(0, left * stepMs - (atMs - lastStepAtMs));
  const pace = msPerWork(state);
  return pace === null ? null : pace * workOf(job) * (left / job.steps);
}

/** The pace of the job itself. Its first step, with the text before it, does not count. */
function ownStepMs({ step, firstStep, firstStepAtMs, lastStepAtMs }: CurrentJob): number | null {
  const made = step - firstStep;
  return made < OWN_PACE_STEPS ? null : (lastStepAtMs - firstStepAtMs) / (made - 1);
}

function msPerWork({ jobMsPerWork, warmUpMsPerWork }: State): number | null {
  return jobMsPerWork ?? warmUpMsPerWork;
}

function spreadOf({ jobMsPerWork }: State): readonly [number, number] {
  return jobMsPerWork === null ? SPREAD.warmUp : SPREAD.jobs;
}

function guessMs({ job, step }: CurrentJob): number {
  return JOB_GUESS * 1000 * (1 - step / job.steps);
}

function round(seconds: number): number {
  return Math.round(seconds * 10) / 10;
}
