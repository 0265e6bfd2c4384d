/**
 * The supervisor's decisions: `decide(state, event)` gives the next state and what is to be done. Pure: daemon.ts
 * owns clock, processes, sockets and store.
 */
import type { ErrorObject } from '@qwen-supervisor/protocol/errors';
import type { Job } from '@qwen-supervisor/protocol/job';
import { tokensOf } from '@qwen-supervisor/protocol/job-request';
import { type ChildName, isUp, type Vitals, type WorkerName } from '@qwen-supervisor/protocol/status';
import type { Death } from './attempt.js';
import { activityOf, type Child, type ChildEvent, type ChildLimits, causeOf, stateOf } from './child.js';
import { decideChild } from './child-table.js';
import type { Effect, Event, FromRun } from './events.js';
import { learnedFrom } from './expected-times.js';
import {
  childOf,
  childrenOf,
  holderOf,
  isFree,
  isIdle,
  type Limits,
  namesOf,
  type Run,
  runs,
  type State,
  type Worker,
  whyGivenUp,
  withChild,
  withWorker,
  workerOf,
} from './state.js';

export type Decision = { state: State; effects: Effect[] };
type Of<T extends Event['type']> = Extract<Event, { type: T }>;

/** A step shows how it gets on when it has taken this long. */
const LONG_STEP_MS = 2000;

export function decide(state: State, event: Event, limits: Limits): Decision {
  const moved = react(state, event, limits);
  return RULES.reduce((soFar, rule) => and(soFar, (next) => rule(next, event.atMs, limits)), moved);
}

function react(state: State, event: Event, limits: Limits): Decision {
  switch (event.type) {
    case 'start':
    case 'tick':
      return tellAll(state, { type: event.type }, event.atMs, limits);
    case 'stop':
      if (event.how === 'orderly' && limits.onStop === 'finish' && state.phase === 'running')
        return stay({ ...state, phase: 'finishing' });
      return stopAll(state, event.atMs, limits);
    case 'restart':
      if (isStopping(state)) return stay(state);
      return tell(state, event.name, { type: 'restart', reason: event.reason }, event.atMs, limits);
    case 'load-model':
      if (isStopping(state)) return stay(state);
      return tellWorkers(state, namesOf(state), { type: 'wanted', reason: 'asked to load' }, event.atMs, limits);
    case 'unload-model': {
      const idle = namesOf(state).filter((name) => isIdle(state, workerOf(state, name)));
      return tellWorkers(state, idle, { type: 'stop', forGood: false }, event.atMs, limits);
    }
    case 'child':
      return reactToChild(state, event, limits);
    case 'loading': {
      if (!isCurrent(state, event.worker, event.incarnation)) return stay(state);
      const { worker, progress, atMs } = event;
      return tell(withWorker(state, worker, { load: progress }), worker, { type: 'progress', progress }, atMs, limits);
    }
    case 'loaded': {
      if (!isCurrent(state, event.worker, event.incarnation)) return stay(state);
      const { worker, seconds: loadSeconds, msPerToken, atMs } = event;
      const measured = withWorker(state, worker, { loadSeconds, warmUpMsPerWork: msPerToken });
      // It may take more, or less, than the process before: what it leaves is for the others.
      return tell(wantClaim(measured, canClaim), worker, { type: 'ready', msPerToken }, atMs, limits);
    }
    case 'job-queued':
      return stay(wantClaim(state));
    case 'claimed':
      return reactToClaim(claimEnded(state, event.worker), event.worker, event.job, event.atMs, limits);
    case 'job-begun': {
      const run = runOf(state, event);
      if (!run) return stay(state);
      const { worker, jobId, attempt, step, startedOverReason, device, model, atMs } = event;
      const begun = withWorker(state, worker, { run: { ...run, step, firstStep: step } });
      const start = { step, startedOverReason, device, model };
      const effects: Effect[] = [{ type: 'begin', worker, jobId, attempt, start }];
      return and({ state: begun, effects }, (next) => tell(next, worker, { type: 'begun', step }, atMs, limits));
    }
    case 'job-step': {
      const run = runOf(state, event);
      if (!run) return stay(state);
      const { worker, jobId, step, preview, atMs: lastStepAtMs } = event;
      const firstStepAtMs = run.step === run.firstStep ? lastStepAtMs : run.firstStepAtMs;
      const effects: Effect[] = [{ type: 'tell-step', jobId, step, steps: run.job.steps, preview }];
      return {
        state: withWorker(state, worker, { run: { ...run, step, stepShare: 0, firstStepAtMs, lastStepAtMs } }),
        effects,
      };
    }
    case 'job-decoding':
      return { state, effects: runOf(state, event) ? [{ type: 'tell-decoding', jobId: event.jobId }] : [] };
    case 'job-finished':
      return reactToFinish(state, event, limits);
    case 'cancel-running': {
      const { jobId, keep } = event;
      const worker = holderOf(state, jobId);
      if (worker === null) return stay(state);
      const { attempt } = workerOf(state, worker).run as Run;
      return { state, effects: [{ type: 'cancel-run', worker, jobId, attempt, keep }] };
    }
    case 'store-failed':
      return endWith(state, event.error, event.atMs, limits);
  }
}

function reactToChild(state: State, { name, incarnation, event, atMs }: Of<'child'>, limits: Limits): Decision {
  const before = childOf(state, name);
  if (before.incarnation !== incarnation) return stay(state);
  const moved = tell(state, name, event, atMs, limits);
  // Nobody was served yet: better to say so and end than to run without an API.
  if (event.type === 'fatal' && event.error.code === 'PORT_IN_USE' && name === 'api' && before.timesReady === 0)
    return and(moved, (next) => endWith(next, event.error, atMs, limits));
  if (event.type === 'beat' && name !== 'api') return and(moved, (next) => reactToBeat(next, name, event.vitals, atMs));
  if (event.type !== 'exited') return moved;
  const { state: next, effects } = reactToExit(moved.state, before, event, atMs);
  // What the exit means for its job, and its record, before what comes next.
  return { state: next, effects: [...effects, ...moved.effects] };
}

/** A step that takes long shows how it gets on. */
function reactToBeat(state: State, name: WorkerName, { stepShare, step }: Vitals, atMs: number): Decision {
  const { run } = workerOf(state, name);
  // A beat may come before the step that it counts is told.
  if (!run || step !== run.step || stepShare <= run.stepShare) return stay(state);
  const next = withWorker(state, name, { run: { ...run, stepShare } });
  const isLong = atMs - Math.max(run.sinceMs, run.lastStepAtMs) > LONG_STEP_MS;
  return { state: next, effects: isLong ? [{ type: 'tell-progress', jobId: run.job.id }] : [] };
}

/** `state`: after the child's own reaction; `before`: the child as it was. */
function reactToExit(
  state: State,
  before: Child,
  exit: Extract<ChildEvent, { type: 'exited' }>,
  atMs: number,
): Decision {
  const { name, pid, vitals, spawnedAtMs } = before;
  const cause = causeOf(before, exit);
  const { reason } = childOf(state, name);
  const run = name === 'api' ? null : workerOf(state, name).run;
  const effects: Effect[] = [];
  if (run)
    effects.push({
      type: 'release',
      jobId: run.job.id,
      attempt: run.job.attempts,
      reason: cause === 'planned' ? 'the worker was stopped' : reason,
      death: deathOf(cause, run),
      step: run.step,
    });
  if (cause !== 'planned')
    effects.push({
      type: 'record-crash',
      crash: {
        at: exit.at,
        child: name,
        pid,
        cause,
        code: exit.code,
        signal: exit.signal,
        during: activityOf(before),
        uptimeSeconds: Math.round((atMs - spawnedAtMs) / 100) / 10,
        rssBytes: vitals?.rssBytes ?? null,
        job: run && { id: run.job.id, attempt: run.attempt, step: run.step },
        reason,
      },
    });
  if (name === 'api') return { state, effects };
  const without = withWorker(state, name, { load: null, run: null });
  // What was left to it may be for the others now.
  return {
    state: run ? wantClaim(without) : wantClaim(without, canClaim),
    effects,
  };
}

/** Whose doing the death was, as far as the job in flight is concerned. */
function deathOf(cause: ReturnType<typeof causeOf>, { step, firstStep }: Run): Death {
  if (cause === 'planned') return 'none';
  // A card that fails is not the picture's doing.
  if (cause !== 'killed' && cause !== 'device') return 'own';
  return step > firstStep ? 'outside-after-progress' : 'outside';
}

/** The store has given a job, recorded as an attempt. */
function reactToClaim(state: State, worker: WorkerName, job: Job | null, atMs: number, limits: Limits): Decision {
  if (job === null) return stay(state);
  const { attempts: attempt, step } = job;
  const isThere = isFree(workerOf(state, worker));
  if (!isThere || state.phase !== 'running') {
    const reason = isThere ? 'the supervisor is stopping' : 'the worker went away before it got the job';
    return {
      state: wantClaim(state),
      effects: [{ type: 'release', jobId: job.id, attempt: job.attempts, reason, death: 'none', step }],
    };
  }
  // There may be more of them.
  const next = wantClaim(state, isOne(state, worker));
  const run: Run = {
    job,
    attempt,
    step,
    stepShare: 0,
    firstStep: step,
    sinceMs: atMs,
    firstStepAtMs: atMs,
    lastStepAtMs: atMs,
  };
  const taken = tell(
    withWorker(next, worker, { run }),
    worker,
    { type: 'assigned', tokens: tokensOf(job) },
    atMs,
    limits,
  );
  return { state: taken.state, effects: [...taken.effects, { type: 'dispatch', worker, job, attempt }] };
}

function reactToFinish(state: State, event: Of<'job-finished'>, limits: Limits): Decision {
  const run = runOf(state, event);
  if (!run) return stay(state);
  const { worker, jobId, attempt, outcome, atMs } = event;
  const { job, firstStep } = run;
  const step = outcome.status === 'done' ? outcome.step : run.step;
  const isWhole = outcome.status === 'done' && firstStep === 0 && step === job.steps;
  const learned = isWhole ? learnedFrom(workerOf(state, worker), run, atMs) : {};
  const ended = withWorker(state, worker, { run: null, ...learned });
  const next = wantClaim(ended, isOne(ended, worker));
  const effects: Effect[] = [{ type: 'finish', jobId, attempt, step, outcome }];
  return and({ state: next, effects }, (idle) => tell(idle, worker, { type: 'idle' }, atMs, limits));
}

/** What follows from the state alone, whatever the event was; in this order. */
type Rule = (state: State, atMs: number, limits: Limits) => Decision;
const RULES: Rule[] = [stopWhenFinished, endWhenAllStopped, loadForWaitingJob, claimNext];

/** A claim that is still under way is released when it comes. */
function stopWhenFinished(state: State, atMs: number, limits: Limits): Decision {
  return state.phase === 'finishing' && runs(state).length === 0 ? stopAll(state, atMs, limits) : stay(state);
}

function endWhenAllStopped(state: State): Decision {
  const done = childrenOf(state).every(({ phase }) => phase === 'stopped');
  if (state.phase !== 'stopping' || !done) return stay(state);
  return { state: { ...state, phase: 'ended' }, effects: [{ type: 'exit', error: state.exitError }] };
}

/** Unloaded: a job brings the model back. */
function loadForWaitingJob(state: State, atMs: number, limits: Limits): Decision {
  if (state.phase !== 'running') return stay(state);
  const unloaded = namesOf(state).filter((name) => {
    const { child, claim } = workerOf(state, name);
    const isWanted = claim === 'wanted' || claim === 'under-way-and-wanted';
    return isWanted && child.phase === 'stopped' && child.incarnation > 0;
  });
  return tellWorkers(state, unloaded, { type: 'wanted', reason: 'a job wants the model' }, atMs, limits);
}

/** In the order of the workers: the first takes the first job. */
function claimNext(state: State): Decision {
  // What would be claimed while the last pictures end would be given back, again and again.
  if (state.phase !== 'running') return stay(state);
  const claiming = namesOf(state).filter((name) => {
    const worker = workerOf(state, name);
    return worker.claim === 'wanted' && isFree(worker);
  });
  const next = claiming.reduce((soFar, name) => withWorker(soFar, name, { claim: 'under-way' }), state);
  return { state: next, effects: claiming.map((worker) => ({ type: 'claim', worker })) };
}

/** There may be a job for those workers. */
function wantClaim(state: State, isMeant: (worker: Worker) => boolean = () => true): State {
  const meant = namesOf(state).filter((name) => isMeant(workerOf(state, name)));
  return meant.reduce((soFar, name) => {
    const isUnderWay = workerOf(soFar, name).claim.startsWith('under-way');
    return withWorker(soFar, name, { claim: isUnderWay ? 'under-way-and-wanted' : 'wanted' });
  }, state);
}

/** Whether it asks for a job by itself as soon as it is free. */
function canClaim({ child }: Worker): boolean {
  return child.phase === 'loading' || isUp(stateOf(child));
}

function isOne({ workers }: State, name: WorkerName): (worker: Worker) => boolean {
  return (worker) => worker === workers[name];
}

function claimEnded(state: State, name: WorkerName): State {
  const { claim } = workerOf(state, name);
  return withWorker(state, name, { claim: claim === 'under-way-and-wanted' ? 'wanted' : 'none' });
}

function stopAll(state: State, atMs: number, limits: Limits): Decision {
  if (state.phase === 'ended') return stay(state);
  return tellAll({ ...state, phase: 'stopping' }, { type: 'stop', forGood: true }, atMs, limits);
}

/** Stops everything and ends with this error. */
function endWith(state: State, error: ErrorObject, atMs: number, limits: Limits): Decision {
  return stopAll({ ...state, exitError: state.exitError ?? error }, atMs, limits);
}

function tellAll(state: State, event: ChildEvent, atMs: number, limits: Limits): Decision {
  const names = childrenOf(state).map(({ name }) => name);
  return names.reduce((soFar, name) => and(soFar, (next) => tell(next, name, event, atMs, limits)), stay(state));
}

function tellWorkers(state: State, names: WorkerName[], event: ChildEvent, atMs: number, limits: Limits): Decision {
  return names.reduce((soFar, name) => and(soFar, (next) => tell(next, name, event, atMs, limits)), stay(state));
}

function tell(state: State, name: ChildName, event: ChildEvent, atMs: number, limits: Limits): Decision {
  const before = childOf(state, name);
  const { child, effects } = decideChild(before, event, atMs, limitsOf(limits, name));
  const next = withChild(state, child);
  const reason = name !== 'api' && child.phase === 'failed' && before.phase !== 'failed' ? whyGivenUp(next) : null;
  const announced: Effect[] = reason === null ? [] : [{ type: 'announce-failure', reason }];
  return { state: next, effects: [...announced, ...effects] };
}

function stay(state: State): Decision {
  return { state, effects: [] };
}

/** One decision after the other. */
function and({ state, effects }: Decision, next: (state: State) => Decision): Decision {
  const second = next(state);
  return { state: second.state, effects: [...effects, ...second.effects] };
}

function limitsOf({ api, workers }: Limits, name: ChildName): ChildLimits {
  return name === 'api' ? api : (workers[name] as ChildLimits);
}

function isStopping({ phase }: State): boolean {
  return phase === 'stopping' || phase === 'ended';
}

function isCurrent(state: State, worker: WorkerName, incarnation: number): boolean {
  return workerOf(state, worker).child.incarnation === incarnation;
}

/** The run that a message is about; null if the worker is not at it, or not any more. */
function runOf(state: State, { worker, incarnation, jobId, attempt }: FromRun): Run | null {
  const { run } = workerOf(state, worker);
  const isIt = isCurrent(state, worker, incarnation) && run?.job.id === jobId && run.attempt === attempt;
  return isIt ? run : null;
}
