/**
 * The supervisor's decisions: `step(state, event)` gives the next state and what is to be done. Pure: events carry the
 * time and the chance that they need; daemon.ts owns clock, processes, sockets and store.
 */
import type { ErrorObject } from '@qwen-supervisor/protocol/errors';
import type { Job } from '@qwen-supervisor/protocol/job';
import { tokensOf, workOf } from '@qwen-supervisor/protocol/job-request';
import type { JobOutcome } from '@qwen-supervisor/protocol/messages';
import { CHILD_NAMES, type ChildName, type Crash, type LoadProgress } from '@qwen-supervisor/protocol/status';
import type { AttemptStart, Death } from './attempt.js';
import { type Child, type ChildEffect, type ChildEvent, type ChildLimits, causeOf, newChild } from './child.js';
import { stepChild } from './child-table.js';

/** The job in the worker's hands. */
export interface CurrentJob {
  job: Job;
  attempt: number;
  /** Completed steps. */
  step: number;
  /** Where this attempt began. */
  firstStep: number;
  sinceMs: number;
  /** When the first and the last step of this attempt were completed. */
  firstStepAtMs: number;
  lastStepAtMs: number;
}

export interface State {
  children: Record<ChildName, Child>;
  current: CurrentJob | null;
  /** A claim is under way in the store. */
  claiming: boolean;
  /** Something was queued while a claim was under way that may have come too early to see it. */
  claimAgain: boolean;
  load: LoadProgress | null;
  loadSeconds: number | null;
  /** How long jobs of late have taken for what is to be computed (see `workOf`); null before the first has ended. */
  jobMsPerWork: number | null;
  /** The same of the warm-up of the last load. */
  warmUpMsPerWork: number | null;
  /** No new job is begun; when the current one has ended everything stops. */
  finishing: boolean;
  stopping: boolean;
  /** All children have stopped and the exit has been asked for. */
  ended: boolean;
  /** The error that ends the supervisor, if one does. */
  exitError: ErrorObject | null;
}

export type Event =
  | { type: 'start'; atMs: number }
  /** `finish`: the running job may end first. */
  | { type: 'stop'; atMs: number; finish: boolean }
  | { type: 'restart'; atMs: number; name: ChildName; reason: string }
  /** Somebody wants the model in memory, or out of it until a job wants it. */
  | { type: 'load-model'; atMs: number }
  | { type: 'unload-model'; atMs: number }
  | { type: 'tick'; atMs: number }
  /** The supervisor itself stood still for so long (SIGSTOP, a suspended machine, a blocked terminal). */
  | { type: 'paused'; atMs: number; ms: number }
  /** Of one process of a child; ignored unless it is the current one. */
  | { type: 'child'; name: ChildName; incarnation: number; atMs: number; event: ChildEvent }
  | { type: 'loading'; incarnation: number; atMs: number; progress: LoadProgress }
  | { type: 'loaded'; incarnation: number; atMs: number; seconds: number; msPerToken: number }
  | { type: 'job-queued'; atMs: number }
  | { type: 'claimed'; atMs: number; job: Job | null }
  | ({ type: 'job-begun'; incarnation: number; atMs: number; jobId: string; attempt: number } & AttemptStart)
  | { type: 'job-step'; incarnation: number; atMs: number; jobId: string; attempt: number; step: number }
  | { type: 'job-finished'; incarnation: number; atMs: number; jobId: string; attempt: number; outcome: JobOutcome }
  /** `keep`: with the picture that it has reached. */
  | { type: 'cancel-running'; atMs: number; jobId: string; keep: boolean }
  /** Nothing that the store says from now on is sure to be true. */
  | { type: 'store-failed'; atMs: number; error: ErrorObject };

export type Effect =
  | ChildEffect
  | { type: 'claim' }
  | { type: 'dispatch'; job: Job; attempt: number }
  | { type: 'cancel-run'; jobId: string; attempt: number; keep: boolean }
  | { type: 'begin'; jobId: string; attempt: number; start: AttemptStart }
  /** Back into the queue: the attempt ended without an outcome. */
  | { type: 'release'; jobId: string; reason: string; death: Death; step: number }
  | { type: 'finish'; jobId: string; attempt: number; step: number; outcome: JobOutcome }
  /** An unplanned exit, to be kept with the last lines of the child's output. */
  | { type: 'record-crash'; crash: Omit<Crash, 'tail'>; incarnation: number }
  | { type: 'exit'; error: ErrorObject | null };

export type Limits = Record<ChildName, ChildLimits>;
export type Step = { state: State; effects: Effect[] };

/** Passes of a warm-up step, which is guided. */
const WARM_UP_PASSES = 2;
/** Weight of the newest job in the mean of how long jobs take. */
const NEWEST = 0.3;

export function initialState(): State {
  return {
    children: { inference: newChild('inference'), api: newChild('api') },
    current: null,
    claiming: false,
    claimAgain: false,
    load: null,
    loadSeconds: null,
    jobMsPerWork: null,
    warmUpMsPerWork: null,
    finishing: false,
    stopping: false,
    ended: false,
    exitError: null,
  };
}

export function step(state: State, event: Event, limits: Limits): Step {
  const moved = react(state, event, limits);
  return settle(moved.state, moved.effects, event.atMs, limits);
}

/** The earliest moment at which a `tick` has something to do. */
export function nextDeadline(state: State): number | null {
  const deadlines = CHILD_NAMES.map((name) => state.children[name].deadlineMs).filter((at) => at !== null);
  return deadlines.length === 0 ? null : Math.min(...deadlines);
}

function react(state: State, event: Event, limits: Limits): Step {
  switch (event.type) {
    case 'start':
    case 'tick':
      return forAll(state, { type: event.type }, event.atMs, limits);
    case 'paused':
      return forAll(state, { type: 'paused', ms: event.ms }, event.atMs, limits);
    case 'stop':
      if (event.finish) return nothing({ ...state, finishing: true });
      return stopAll(state, event.atMs, limits);
    case 'restart':
      if (state.stopping) return nothing(state);
      return forChild(state, event.name, { type: 'restart', reason: event.reason }, event.atMs, limits);
    case 'load-model':
      if (state.stopping) return nothing(state);
      return forChild(state, 'inference', { type: 'wanted', reason: 'asked to load' }, event.atMs, limits);
    case 'unload-model':
      if (!isIdle(state)) return nothing(state);
      return forChild(state, 'inference', { type: 'stop' }, event.atMs, limits);
    case 'child':
      return reactToChild(state, event, limits);
    case 'loading':
      if (!isCurrent(state, event.incarnation)) return nothing(state);
      return forChild(
        { ...state, load: event.progress },
        'inference',
        { type: 'progress', progress: event.progress },
        event.atMs,
        limits,
      );
    case 'loaded': {
      if (!isCurrent(state, event.incarnation)) return nothing(state);
      const ready: ChildEvent = { type: 'ready', msPerToken: event.msPerToken };
      const measured = { loadSeconds: event.seconds, warmUpMsPerWork: event.msPerToken / WARM_UP_PASSES };
      return forChild({ ...state, ...measured }, 'inference', ready, event.atMs, limits);
    }
    case 'job-queued':
      return nothing({ ...state, claimAgain: true });
    case 'claimed':
      return reactToClaim({ ...state, claiming: false }, event.job, event.atMs, limits);
    case 'job-begun': {
      if (!isRunning(state, event)) return nothing(state);
      const { jobId, attempt, step: firstStep, startedOverReason } = event;
      const begin: Effect = { type: 'begin', jobId, attempt, start: { step: firstStep, startedOverReason } };
      const current = { ...(state.current as CurrentJob), step: firstStep, firstStep };
      const begun = forChild(
        { ...state, current },
        'inference',
        { type: 'begun', step: firstStep },
        event.atMs,
        limits,
      );
      return { state: begun.state, effects: [begin, ...begun.effects] };
    }
    case 'job-step': {
      if (!isRunning(state, event)) return nothing(state);
      const current = state.current as CurrentJob;
      const { atMs: lastStepAtMs, step: completed } = event;
      const firstStepAtMs = current.step === current.firstStep ? lastStepAtMs : current.firstStepAtMs;
      return nothing({ ...state, current: { ...current, step: completed, firstStepAtMs, lastStepAtMs } });
    }
    case 'job-finished':
      return reactToFinish(state, event, limits);
    case 'cancel-running':
      if (state.current?.job.id !== event.jobId) return nothing(state);
      return {
        state,
        effects: [{ type: 'cancel-run', jobId: event.jobId, attempt: state.current.attempt, keep: event.keep }],
      };
    case 'store-failed':
      return endWith(state, event.error, event.atMs, limits);
  }
}

function reactToChild(state: State, event: Extract<Event, { type: 'child' }>, limits: Limits): Step {
  const child = state.children[event.name];
  if (child.incarnation !== event.incarnation) return nothing(state);
  const { state: next, effects } = forChild(state, event.name, event.event, event.atMs, limits);
  if (
    event.event.type === 'fatal' &&
    event.event.error.code === 'PORT_IN_USE' &&
    child.name === 'api' &&
    child.restarts === 0
  ) {
    // Nobody was served yet: better to say so and end than to run without an API.
    const stopped = endWith(next, event.event.error, event.atMs, limits);
    return { state: stopped.state, effects: [...effects, ...stopped.effects] };
  }
  if (event.event.type !== 'exited') return { state: next, effects };
  return reactToExit(next, child, event.event, event.atMs, effects);
}

/** `next`: after the child's own reaction; `child`: as it was before. */
function reactToExit(
  next: State,
  child: Child,
  exit: Extract<ChildEvent, { type: 'exited' }>,
  atMs: number,
  effects: Effect[],
): Step {
  const cause = causeOf(child, exit);
  const { reason } = next.children[child.name];
  const { current } = next;
  const held = child.name === 'inference' ? current : null;
  const crash: Effect[] =
    cause === 'planned'
      ? []
      : [
          {
            type: 'record-crash',
            incarnation: child.incarnation,
            crash: {
              at: exit.at,
              child: child.name,
              pid: child.pid,
              cause,
              code: exit.code,
              signal: exit.signal,
              during: child.state,
              uptimeSeconds: Math.round((atMs - child.spawnedAtMs) / 100) / 10,
              rssBytes: child.vitals?.rssBytes ?? null,
              job: held && { id: held.job.id, attempt: held.attempt, step: held.step },
              reason,
            },
          },
        ];
  if (child.name === 'api') return { state: next, effects: [...crash, ...effects] };
  const load = null;
  if (!held) return { state: { ...next, load }, effects: [...crash, ...effects] };
  const release: Effect = {
    type: 'release',
    jobId: held.job.id,
    reason: cause === 'planned' ? 'the worker was stopped' : reason,
    death: deathOf(cause, held),
    step: held.step,
  };
  return { state: { ...next, load, current: null, claimAgain: true }, effects: [release, ...crash, ...effects] };
}

/** Whose doing the death was, as far as the job in flight is concerned. */
function deathOf(cause: ReturnType<typeof causeOf>, { step: completed, firstStep }: CurrentJob): Death {
  if (cause === 'planned') return 'none';
  if (cause !== 'killed') return 'own';
  return completed > firstStep ? 'outside-after-progress' : 'outside';
}

function stopAll(state: State, atMs: number, limits: Limits): Step {
  return forAll({ ...state, stopping: true }, { type: 'stop' }, atMs, limits);
}

/** Stops everything and ends with this error. */
function endWith(state: State, error: ErrorObject, atMs: number, limits: Limits): Step {
  return stopAll({ ...state, exitError: state.exitError ?? error }, atMs, limits);
}

/** The store has given a job, recorded as an attempt. */
function reactToClaim(state: State, job: Job | null, atMs: number, limits: Limits): Step {
  if (job === null) return nothing(state);
  if (state.children.inference.state !== 'ready' || state.finishing) {
    const reason = state.finishing ? 'the supervisor is stopping' : 'the worker went away before it got the job';
    const release: Effect = { type: 'release', jobId: job.id, reason, death: 'none', step: job.step };
    return { state: { ...state, claimAgain: true }, effects: [release] };
  }
  const taken = forChild(state, 'inference', { type: 'assigned', tokens: tokensOf(job) }, atMs, limits);
  const { attempts: attempt, step: firstStep } = job;
  const times = { sinceMs: atMs, firstStepAtMs: atMs, lastStepAtMs: atMs };
  const current: CurrentJob = { job, attempt, step: firstStep, firstStep, ...times };
  return {
    state: { ...taken.state, current, claimAgain: true },
    effects: [...taken.effects, { type: 'dispatch', job, attempt: job.attempts }],
  };
}

function reactToFinish(state: State, event: Extract<Event, { type: 'job-finished' }>, limits: Limits): Step {
  if (!isRunning(state, event)) return nothing(state);
  const { step: steps, job, sinceMs, firstStep } = state.current as CurrentJob;
  const { jobId, attempt, outcome } = event;
  const step = outcome.status === 'done' ? outcome.step : steps;
  const finish: Effect = { type: 'finish', jobId, attempt, step, outcome };
  const whole = outcome.status === 'done' && firstStep === 0 && step === job.steps;
  const jobMsPerWork = whole ? mean(state.jobMsPerWork, (event.atMs - sinceMs) / workOf(job)) : state.jobMsPerWork;
  const idle = forChild(
    { ...state, current: null, claimAgain: true, jobMsPerWork },
    'inference',
    { type: 'idle' },
    event.atMs,
    limits,
  );
  return { state: idle.state, effects: [finish, ...idle.effects] };
}

function mean(before: number | null, newest: number): number {
  return before === null ? newest : before + NEWEST * (newest - before);
}

/** What follows from the state alone, whatever the event was. */
function settle(state: State, effects: Effect[], atMs: number, limits: Limits): Step {
  if (state.stopping) {
    const done = CHILD_NAMES.every((name) => state.children[name].state === 'stopped');
    if (!done || state.ended) return { state, effects };
    return { state: { ...state, ended: true }, effects: [...effects, { type: 'exit', error: state.exitError }] };
  }
  // A claim that is still under way is released when it comes.
  if (state.finishing && !state.current) {
    const stopped = stopAll(state, atMs, limits);
    return settle(stopped.state, [...effects, ...stopped.effects], atMs, limits);
  }
  // Unloaded: a job brings it back.
  if (state.children.inference.state === 'stopped' && state.claimAgain && state.children.inference.incarnation > 0) {
    const wanted: ChildEvent = { type: 'wanted', reason: 'a job wants the model' };
    const started = forChild(state, 'inference', wanted, atMs, limits);
    return { state: started.state, effects: [...effects, ...started.effects] };
  }
  const free = state.children.inference.state === 'ready' && !state.current && !state.claiming;
  if (!free || !state.claimAgain) return { state, effects };
  return { state: { ...state, claiming: true, claimAgain: false }, effects: [...effects, { type: 'claim' }] };
}

function forAll(state: State, event: ChildEvent, atMs: number, limits: Limits): Step {
  return CHILD_NAMES.reduce<Step>(
    (soFar, name) => {
      const next = forChild(soFar.state, name, event, atMs, limits);
      return { state: next.state, effects: [...soFar.effects, ...next.effects] };
    },
    { state, effects: [] },
  );
}

function forChild(state: State, name: ChildName, event: ChildEvent, atMs: number, limits: Limits): Step {
  const { child, effects } = stepChild(state.children[name], event, atMs, limits[name]);
  return { state: { ...state, children: { ...state.children, [name]: child } }, effects };
}

/** Neither draws nor is about to. */
export function isIdle({ children, current, claiming, claimAgain, stopping }: State): boolean {
  return children.inference.state === 'ready' && !current && !claiming && !claimAgain && !stopping;
}

function nothing(state: State): Step {
  return { state, effects: [] };
}

function isCurrent(state: State, incarnation: number): boolean {
  return state.children.inference.incarnation === incarnation;
}

function isRunning(state: State, event: { incarnation: number; jobId: string; attempt: number }): boolean {
  return (
    isCurrent(state, event.incarnation) &&
    state.current?.job.id === event.jobId &&
    state.current.attempt === event.attempt
  );
}
