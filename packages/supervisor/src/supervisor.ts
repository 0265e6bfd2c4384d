/**
 * The supervisor's decisions: `step(state, event)` gives the next state and what is to be done. Pure: events carry the
 * time and the chance that they need; daemon.ts owns clock, processes, sockets and store.
 */
import type { ErrorObject } from '@qwen-supervisor/protocol/errors';
import type { Job } from '@qwen-supervisor/protocol/job';
import type { JobOutcome } from '@qwen-supervisor/protocol/messages';
import { CHILD_NAMES, type ChildName, type LoadProgress } from '@qwen-supervisor/protocol/status';
import {
  type Child,
  type ChildEffect,
  type ChildEvent,
  type ChildLimits,
  causeOf,
  newChild,
  stepChild,
} from './child.js';
import type { Death } from './job-store.js';

export interface State {
  children: Record<ChildName, Child>;
  /** The job in the worker's hands. */
  current: { job: Job; attempt: number; step: number } | null;
  /** A claim is under way in the store. */
  claiming: boolean;
  /** Something was queued while a claim was under way that may have come too early to see it. */
  claimAgain: boolean;
  load: LoadProgress | null;
  loadSeconds: number | null;
  stopping: boolean;
  /** All children have stopped and the exit has been asked for. */
  ended: boolean;
  /** The error that ends the supervisor, if one does. */
  exitError: ErrorObject | null;
}

export type Event =
  | { type: 'start'; atMs: number }
  | { type: 'stop'; atMs: number }
  | { type: 'tick'; atMs: number }
  /** Of one process of a child; ignored unless it is the current one. */
  | { type: 'child'; name: ChildName; incarnation: number; atMs: number; event: ChildEvent }
  | { type: 'loading'; incarnation: number; atMs: number; progress: LoadProgress }
  | { type: 'loaded'; incarnation: number; atMs: number; seconds: number }
  | { type: 'job-queued'; atMs: number }
  | { type: 'claimed'; atMs: number; job: Job | null }
  | { type: 'job-step'; incarnation: number; atMs: number; jobId: string; attempt: number; step: number }
  | { type: 'job-finished'; incarnation: number; atMs: number; jobId: string; attempt: number; outcome: JobOutcome }
  | { type: 'cancel-running'; atMs: number; jobId: string }
  /** Nothing that the store says from now on is sure to be true. */
  | { type: 'store-failed'; atMs: number; error: ErrorObject };

export type Effect =
  | ChildEffect
  | { type: 'claim' }
  | { type: 'dispatch'; job: Job; attempt: number }
  | { type: 'cancel-run'; jobId: string; attempt: number }
  /** Back into the queue: the attempt ended without an outcome. */
  | { type: 'release'; jobId: string; reason: string; death: Death }
  | { type: 'finish'; jobId: string; attempt: number; step: number; outcome: JobOutcome }
  | { type: 'exit'; error: ErrorObject | null };

export type Limits = Record<ChildName, ChildLimits>;
export type Step = { state: State; effects: Effect[] };

export function initialState(): State {
  return {
    children: { inference: newChild('inference'), api: newChild('api') },
    current: null,
    claiming: false,
    claimAgain: false,
    load: null,
    loadSeconds: null,
    stopping: false,
    ended: false,
    exitError: null,
  };
}

export function step(state: State, event: Event, limits: Limits): Step {
  const moved = react(state, event, limits);
  return settle(moved.state, moved.effects);
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
    case 'stop':
      return forAll({ ...state, stopping: true }, { type: 'stop' }, event.atMs, limits);
    case 'child':
      return reactToChild(state, event, limits);
    case 'loading':
      if (!isCurrent(state, event.incarnation)) return nothing(state);
      return forChild(
        { ...state, load: event.progress },
        'inference',
        { type: 'progress', share: event.progress.bytesDone / Math.max(1, event.progress.bytesTotal) },
        event.atMs,
        limits,
      );
    case 'loaded':
      if (!isCurrent(state, event.incarnation)) return nothing(state);
      return forChild({ ...state, loadSeconds: event.seconds }, 'inference', { type: 'ready' }, event.atMs, limits);
    case 'job-queued':
      return nothing({ ...state, claimAgain: true });
    case 'claimed':
      return reactToClaim({ ...state, claiming: false }, event.job, event.atMs, limits);
    case 'job-step': {
      if (!isRunning(state, event)) return nothing(state);
      return nothing({ ...state, current: { ...state.current, step: event.step } as State['current'] });
    }
    case 'job-finished':
      return reactToFinish(state, event, limits);
    case 'cancel-running':
      if (state.current?.job.id !== event.jobId) return nothing(state);
      return { state, effects: [{ type: 'cancel-run', jobId: event.jobId, attempt: state.current.attempt }] };
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
  if (event.event.type !== 'exited' || event.name !== 'inference') return { state: next, effects };
  const load = null;
  if (!next.current) return { state: { ...next, load }, effects };
  const release: Effect = {
    type: 'release',
    jobId: next.current.job.id,
    reason: next.children.inference.reason,
    death: deathOf(causeOf(child, event.event.signal), next.current.step),
  };
  return { state: { ...next, load, current: null, claimAgain: true }, effects: [release, ...effects] };
}

/** Whose doing the death was, as far as the job in flight is concerned. */
function deathOf(cause: ReturnType<typeof causeOf>, completedSteps: number): Death {
  if (cause === 'planned') return 'none';
  if (cause !== 'killed') return 'own';
  return completedSteps > 0 ? 'outside-after-progress' : 'outside';
}

/** Stops everything and ends with this error. */
function endWith(state: State, error: ErrorObject, atMs: number, limits: Limits): Step {
  return forAll({ ...state, stopping: true, exitError: state.exitError ?? error }, { type: 'stop' }, atMs, limits);
}

/** The store has given a job, recorded as an attempt. */
function reactToClaim(state: State, job: Job | null, atMs: number, limits: Limits): Step {
  if (job === null) return nothing(state);
  if (state.children.inference.state !== 'ready') {
    const reason = 'the worker went away before it got the job';
    const release: Effect = { type: 'release', jobId: job.id, reason, death: 'none' };
    return { state: { ...state, claimAgain: true }, effects: [release] };
  }
  const taken = forChild(state, 'inference', { type: 'assigned' }, atMs, limits);
  return {
    state: { ...taken.state, current: { job, attempt: job.attempts, step: 0 }, claimAgain: true },
    effects: [...taken.effects, { type: 'dispatch', job, attempt: job.attempts }],
  };
}

function reactToFinish(state: State, event: Extract<Event, { type: 'job-finished' }>, limits: Limits): Step {
  if (!isRunning(state, event)) return nothing(state);
  const { step: steps, job } = state.current as NonNullable<State['current']>;
  const finish: Effect = {
    type: 'finish',
    jobId: event.jobId,
    attempt: event.attempt,
    step: event.outcome.status === 'done' ? job.steps : steps,
    outcome: event.outcome,
  };
  const idle = forChild(
    { ...state, current: null, claimAgain: true },
    'inference',
    { type: 'idle' },
    event.atMs,
    limits,
  );
  return { state: idle.state, effects: [finish, ...idle.effects] };
}

/** What follows from the state alone, whatever the event was. */
function settle(state: State, effects: Effect[]): Step {
  if (state.stopping) {
    const done = CHILD_NAMES.every((name) => state.children[name].state === 'stopped');
    if (!done || state.ended) return { state, effects };
    return { state: { ...state, ended: true }, effects: [...effects, { type: 'exit', error: state.exitError }] };
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
