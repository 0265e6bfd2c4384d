/** How long things will take, from what was measured. Pure. */
import type { Eta, JobProgress } from '@qwen-supervisor/protocol/job';
import { workOf } from '@qwen-supervisor/protocol/job-request';
import { isUp } from '@qwen-supervisor/protocol/status';
import { type Child, stateOf } from './child.js';
import type { Effect } from './events.js';
import { type Run, runs, type State, type Worker, workersOf } from './state.js';

/** Guesses until something was measured, seconds. */
const LOAD_GUESS = 60;
const JOB_GUESS = 30;
/** Steps of the running job after which its own pace is better than that of others. */
const OWN_PACE_STEPS = 3;
/** How far from the estimate the truth may lie, by what the estimate rests on: least and most, as factors. */
const SPREAD = { warmUp: [0.4, 2], jobs: [0.7, 1.4], ownPace: [0.9, 1.15] } as const;
/** Weight of the newest job in the mean of how long jobs take. */
const NEWEST = 0.3;
/** Decoding and writing a picture, in steps, before one was. */
const FINISH_STEPS = 2;

/** Seconds until the load is done, at the rate so far; null where nothing can be said. */
export function loadEta({ phase, load }: Child, atMs: number): number | null {
  if (phase !== 'loading' || load.share === 0) return null;
  const elapsed = (atMs - load.startedMs) / 1000;
  return round(elapsed * (1 / load.share - 1));
}

/** Seconds until the next job leaves the queue; at least 1. */
export function secondsUntilClaim(state: State, atMs: number): number {
  const alive = workersOf(state).filter(({ child }) => child.phase !== 'failed');
  const each = (alive.length > 0 ? alive : workersOf(state)).map((worker) => {
    const { child, run } = worker;
    if (!isUp(stateOf(child))) return secondsUntilReady(child, atMs);
    return run ? (remainingMs(state, worker, run, atMs) ?? guessMs(run)) / 1000 : 0;
  });
  return Math.max(1, Math.ceil(Math.min(...each)));
}

/** How much of all steps of a running job is made, 0 to 1. */
export function progressOf({ job, step, stepShare }: Run): number {
  return Math.min(1, (step + stepShare) / job.steps);
}

/** When the running job will have its picture. */
export function runningEta(state: State, atMs: number, jobId: string): Eta | null {
  const worker = workersOf(state).find(({ run }) => run?.job.id === jobId);
  if (!worker?.run) return null;
  const ms = remainingMs(state, worker, worker.run, atMs);
  if (ms === null) return null;
  const stepMs = ownStepMs(worker.run);
  const [low, high] = stepMs === null ? spreadOf([worker]) : SPREAD.ownPace;
  const finishMs = worker.besideMs.after > 0 ? 0 : FINISH_STEPS * (stepMs ?? 0);
  return { low: round((low * ms) / 1000), high: round((high * ms + finishMs) / 1000) };
}

type Told = Extract<Effect, { type: 'tell-step' | 'tell-progress' | 'tell-decoding' }>;

/** How far a job is, for those who listen; null where it runs no more. */
export function progressTold(state: State, told: Told, atMs: number): JobProgress | null {
  const { jobId } = told;
  if (told.type === 'tell-decoding') return { type: 'decoding', jobId };
  const eta = runningEta(state, atMs, jobId);
  if (told.type === 'tell-step') {
    const { step, steps, preview } = told;
    return { type: 'step', jobId, step, steps, preview, eta };
  }
  const run = runs(state).find(({ job }) => job.id === jobId);
  if (!run) return null;
  const { step, job } = run;
  return { type: 'progress', jobId, step, steps: job.steps, progress: progressOf(run), eta };
}

/**
 * When a queued job will have its picture, with this much work before it; several workers share that. Those `elsewhere`
 * are taken to be as fast as ours are.
 */
export function queuedEta(
  state: State,
  atMs: number,
  job: { position: number; work: number; workAhead: number },
  elsewhere: number,
): Eta | null {
  const able = workersOf(state).filter(({ child }) => child.phase !== 'failed');
  // What each does in a millisecond; slow ones take less of what is ahead.
  const rate = able.reduce((sum, worker) => sum + 1 / (paceOf(state, worker) ?? Number.POSITIVE_INFINITY), 0);
  if (rate === 0) return null;
  const share = able.length / (able.length + elsewhere);
  const running = able.reduce((sum, one) => sum + (one.run ? (remainingMs(state, one, one.run, atMs) ?? 0) : 0), 0);
  const beside = able.reduce((sum, { besideMs }) => sum + besideMs.before + besideMs.after, 0) / able.length;
  const aheadMs = job.workAhead / rate + ((job.position - 1) * beside) / able.length;
  const ms = running / able.length + share * aheadMs + (able.length / rate) * job.work + beside;
  const waits = able.map(({ child }) => (isUp(stateOf(child)) ? 0 : secondsUntilReady(child, atMs)));
  const waitSeconds = Math.min(...waits);
  const [low, high] = spreadOf(able);
  return { low: round((low * ms) / 1000 + waitSeconds), high: round((high * ms) / 1000 + waitSeconds) };
}

/** Seconds until a worker can draw: its back-off, and a start as long as the last. */
function secondsUntilReady(child: Child, atMs: number): number {
  const startSeconds = child.startMs > 0 ? child.startMs / 1000 : LOAD_GUESS;
  const waitMs = child.deadlineMs === null ? 0 : Math.max(0, child.deadlineMs - atMs);
  if (child.phase === 'backing-off') return waitMs / 1000 + startSeconds;
  return loadEta(child, atMs) ?? startSeconds;
}

function remainingMs(state: State, worker: Worker, run: Run, atMs: number): number | null {
  const { job, step, stepShare, sinceMs, lastStepAtMs } = run;
  const left = job.steps - step - stepShare;
  const stepMs = ownStepMs(run);
  const { before, after } = worker.besideMs;
  if (stepMs !== null) return Math.max(0, (job.steps - step) * stepMs - (atMs - lastStepAtMs) + after);
  const pace = paceOf(state, worker);
  if (pace === null) return null;
  const isBefore = step + stepShare <= run.firstStep;
  return (isBefore ? Math.max(0, before - (atMs - sinceMs)) : 0) + pace * workOf(job) * (left / job.steps) + after;
}

/** What a job that was drawn whole says of those to come: its steps, and all that is beside them. */
export function learnedFrom(
  { jobMsPerWork, besideMs }: Worker,
  { job, sinceMs, firstStepAtMs, lastStepAtMs }: Run,
  atMs: number,
): Pick<Worker, 'jobMsPerWork' | 'besideMs'> {
  // Of one step alone it is not known what it took.
  if (job.steps < 2) return { jobMsPerWork: mean(jobMsPerWork, (atMs - sinceMs) / workOf(job)), besideMs };
  const stepMs = (lastStepAtMs - firstStepAtMs) / (job.steps - 1);
  const isFirst = jobMsPerWork === null;
  return {
    jobMsPerWork: mean(jobMsPerWork, (stepMs * job.steps) / workOf(job)),
    besideMs: {
      before: mean(isFirst ? null : besideMs.before, Math.max(0, firstStepAtMs - stepMs - sinceMs)),
      after: mean(isFirst ? null : besideMs.after, atMs - lastStepAtMs),
    },
  };
}

function mean(before: number | null, newest: number): number {
  return before === null ? newest : before + NEWEST * (newest - before);
}

/** The pace of the job itself. Its first step, with the text before it, does not count. */
function ownStepMs({ step, firstStep, firstStepAtMs, lastStepAtMs }: Run): number | null {
  const made = step - firstStep;
  return made < OWN_PACE_STEPS ? null : (lastStepAtMs - firstStepAtMs) / (made - 1);
}

/** Milliseconds for a unit of work: of steps before, else of the warm-up, else the others' best. */
function paceOf(state: State, worker: Worker): number | null {
  const own = measuredPace(worker);
  if (own !== null) return own;
  const others = workersOf(state).flatMap((one) => measuredPace(one) ?? []);
  return others.length === 0 ? null : Math.min(...others);
}

function measuredPace({ jobMsPerWork, warmUpMsPerWork }: Worker): number | null {
  return jobMsPerWork ?? warmUpMsPerWork;
}

function spreadOf(workers: readonly Worker[]): readonly [number, number] {
  return workers.some(({ jobMsPerWork }) => jobMsPerWork !== null) ? SPREAD.jobs : SPREAD.warmUp;
}

function guessMs({ job, step }: Run): number {
  return JOB_GUESS * 1000 * (1 - step / job.steps);
}

function round(seconds: number): number {
  return Math.round(seconds * 10) / 10;
}
