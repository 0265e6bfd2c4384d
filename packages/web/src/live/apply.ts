/** What an event of the server changes. Pure; an event that is told twice changes nothing the second time. */
import { type AttemptStart, type Eta, isTerminal, type Job } from '@qwen-supervisor/protocol/job';
import {
  type ChildName,
  type ChildState,
  type ChildStatus,
  type Crash,
  isUp,
  type MachineStatus,
  type ModelComponent,
  type ModelStatus,
  mainWorker,
  type WorkerName,
} from '@qwen-supervisor/protocol/status';
import type { LiveState, Running } from './state';

/** Jobs that have ended, crashes, and points of charts that are kept. */
const KEPT = 100;
const POINTS = 240;

/** Fields of the events, as they come. */
export interface Events {
  queued: Job;
  moved: Job;
  running: { id: string; attempt: number; machine: string | null } & AttemptStart;
  step: { id: string; i: number; n: number; eta: Eta | null; preview: string | null };
  progress: { id: string; i: number; n: number; progress: number; eta: Eta | null };
  decoding: { id: string };
  requeued: { id: string; attempt: number; step: number; reason: string };
  done: Job;
  failed: Job;
  cancelled: Job;
  loading: { child: WorkerName; component: ModelComponent; bytes: number; total: number };
  child: { name: ChildName; state: ChildState; pid: number | null; reason: string };
  crash: Crash;
  pictures: { ids: string[]; change: 'starred' | 'unstarred' | 'trashed' | 'restored' | 'removed' };
  machines: { machines: MachineStatus[] };
}

type Apply<K extends keyof Events> = (state: LiveState, data: Events[K], atMs: number) => LiveState;

const TABLE: { [K in keyof Events]: Apply<K> } = {
  queued: (state, job, atMs) => {
    if (knows(state, job.id)) return state;
    return counted({ ...state, queue: inserted(state.queue, job) }, state.status.queue.queued + 1, atMs);
  },
  moved: (state, job) => {
    if (!state.queue.some(({ id }) => id === job.id)) return state;
    return { ...state, queue: inserted(without(state.queue, job.id), job) };
  },
  running: (state, { id, attempt, step, startedOverReason, device, machine, model }, atMs) => {
    const before = state.running.find(({ job }) => job.id === id);
    const known = before?.job ?? state.queue.find((job) => job.id === id);
    // One that is not known is drawn: its name is noted, so that it is asked for.
    if (!known) return isEnded(state, id) ? state : withRuns(state, state.running, [...strangersBut(state, id), id]);
    // A snapshot may have come between the claim and this.
    const isKnown = before?.job.attempts === attempt && before.job.devices.at(-1) === device;
    if (before && (before.job.attempts > attempt || isKnown)) return state;
    const job: Job = {
      ...known,
      status: 'running',
      attempts: attempt,
      step,
      position: null,
      machine,
      model,
      progress: step / known.steps,
      resumedAtStep: step > 0 ? step : null,
      startedOverReason,
      devices: known.devices.at(-1) === device ? known.devices : [...known.devices, device],
    };
    const wasQueued = state.queue.some((one) => one.id === id);
    const running: Running = {
      job,
      phase: 'text',
      preview: before?.preview ?? null,
      toldAtMs: atMs,
      stepAtMs: null,
    };
    const runs = before ? state.running.map((run) => (run === before ? running : run)) : [...state.running, running];
    const next = withRuns({ ...state, queue: without(state.queue, id) }, runs, strangersBut(state, id));
    return wasQueued ? counted(next, state.status.queue.queued - 1, atMs) : next;
  },
  step: (state, { id, i, n, eta, preview }, atMs) =>
    withRun(
      state,
      id,
      (run) => {
        // Heard again after a new start, or out of turn: a step never falls.
        if (i < run.job.step) return null;
        const job = { ...run.job, step: i, steps: n, progress: Math.max(run.job.progress, i / n), eta };
        return { ...run, job, phase: 'drawing', preview: preview ?? run.preview, toldAtMs: atMs };
      },
      atMs,
    ),
  progress: (state, { id, i, n, progress, eta }, atMs) =>
    withRun(
      state,
      id,
      (run) => {
        if (i < run.job.step) return null;
        const job = { ...run.job, step: i, steps: n, progress: Math.max(run.job.progress, progress), eta };
        return { ...run, job, phase: run.phase === 'decoding' ? 'decoding' : 'drawing', toldAtMs: atMs };
      },
      null,
    ),
  decoding: (state, { id }, atMs) =>
    withRun(
      state,
      id,
      (run) => ({ ...run, phase: 'decoding', job: { ...run.job, step: run.job.steps }, toldAtMs: atMs }),
      null,
    ),
  requeued: (state, { id, attempt, step }, atMs) => {
    const run = state.running.find(({ job }) => job.id === id);
    if (!run || run.job.attempts > attempt) return state;
    // It keeps its place, which is before all others.
    const job: Job = { ...run.job, status: 'queued', step, position: 1, eta: null };
    const queue = [job, ...without(state.queue, id)];
    const next = withRuns({ ...state, queue }, runsBut(state, id), state.strangers);
    return counted(next, state.status.queue.queued + 1, atMs);
  },
  done: ended,
  failed: ended,
  cancelled: ended,
  loading: (state, { child: name, component, bytes, total }, atMs) => {
    const load = { component, bytesDone: bytes, bytesTotal: total };
    return withChildren(
      state,
      state.status.children.map((child) => (child.name === name ? { ...child, load } : child)),
      atMs,
    );
  },
  child: (state, { name, state: now, pid, reason }, atMs) =>
    withChildren(
      state,
      state.status.children.map((child) =>
        child.name === name
          ? { ...child, state: now, pid, reason, load: now === 'loading' ? child.load : null }
          : child,
      ),
      atMs,
    ),
  crash: (state, crash) => {
    if (state.crashes.some(({ at, child }) => at === crash.at && child === crash.child)) return state;
    const children = state.status.children.map((child) =>
      child.name === crash.child ? { ...child, restarts: child.restarts + 1 } : child,
    );
    return { ...state, crashes: [crash, ...state.crashes].slice(0, KEPT), status: { ...state.status, children } };
  },
  pictures: (state, { ids, change }, atMs) => {
    const changed = new Set(ids);
    if (change === 'removed') return { ...state, ended: state.ended.filter(({ id }) => !changed.has(id)) };
    const mark: Partial<Job> =
      change === 'starred' || change === 'unstarred'
        ? { starred: change === 'starred' }
        : { trashedAt: change === 'trashed' ? new Date(atMs).toISOString() : null };
    return { ...state, ended: state.ended.map((job) => (changed.has(job.id) ? { ...job, ...mark } : job)) };
  },
  machines: (state, { machines }) => ({ ...state, status: { ...state.status, machines } }),
};

/** @param atMs by the server's clock */
export function apply(state: LiveState, name: string, data: unknown, atMs: number): LiveState {
  if (!Object.hasOwn(TABLE, name)) return state;
  return (TABLE[name as keyof Events] as Apply<never>)(state, data as never, atMs);
}

function ended(state: LiveState, job: Job, atMs: number): LiveState {
  if (state.ended.some(({ id }) => id === job.id)) return state;
  const wasRunning = state.running.some((run) => run.job.id === job.id) || state.strangers.includes(job.id);
  const next: LiveState = {
    ...state,
    queue: without(state.queue, job.id),
    ended: [job, ...state.ended].slice(0, KEPT),
  };
  if (wasRunning) return withRuns(next, runsBut(state, job.id), strangersBut(state, job.id));
  // Also one that is too far behind to be known.
  return counted(next, state.status.queue.queued - 1, atMs);
}

function isEnded(state: LiveState, id: string): boolean {
  return state.ended.some((job) => job.id === id);
}

function knows(state: LiveState, id: string): boolean {
  return [...state.running.map(({ job }) => job), ...state.queue, ...state.ended].some((job) => job.id === id);
}

function without(jobs: readonly Job[], id: string): readonly Job[] {
  return jobs.some((job) => job.id === id) ? jobs.filter((job) => job.id !== id) : jobs;
}

/** Into its place; one whose place is beyond those that are known is not shown. */
function inserted(queue: readonly Job[], job: Job): readonly Job[] {
  const at = (job.position ?? Number.POSITIVE_INFINITY) - 1;
  return at > queue.length ? queue : [...queue.slice(0, at), job, ...queue.slice(at)];
}

function withRun(
  state: LiveState,
  id: string,
  change: (run: Running) => Running | null,
  stepAtMs: number | null,
): LiveState {
  const before = state.running.find(({ job }) => job.id === id);
  if (!before || isTerminal(before.job.status)) return state;
  const changed = change(before);
  if (!changed) return state;
  const after = stepAtMs === null ? changed : { ...changed, stepAtMs };
  const running = state.running.map((run) => (run === before ? after : run));
  const isOneOn = after.job.step === before.job.step + 1;
  if (stepAtMs === null || before.stepAtMs === null || !isOneOn) return { ...state, running };
  const took = (stepAtMs - before.stepAtMs) / 1000;
  return { ...state, running, stepSeconds: [...state.stepSeconds, took].slice(-POINTS) };
}

/** The model is where the worker is that is furthest. */
function withChildren(state: LiveState, children: ChildStatus[], atMs: number): LiveState {
  const { model } = state.status;
  const { state: furthest, load } = mainWorker(children);
  const modelState = isUp(furthest) ? 'ready' : furthest === 'loading' ? 'loading' : 'unloaded';
  const bytesTotal = load?.bytesTotal ?? model.bytesTotal;
  const bytesDone = modelState === 'ready' ? bytesTotal : (load?.bytesDone ?? 0);
  const component = modelState === 'loading' ? (load?.component ?? null) : null;
  const moved = bytesDone !== model.bytesDone || component !== model.component || modelState !== model.state;
  const next: ModelStatus = moved ? { ...model, state: modelState, component, bytesDone, bytesTotal } : model;
  return {
    ...state,
    status: { ...state.status, children, model: next },
    loadMovedAtMs: moved ? atMs : state.loadMovedAtMs,
  };
}

function runsBut({ running }: LiveState, id: string): readonly Running[] {
  return running.filter(({ job }) => job.id !== id);
}

function strangersBut({ strangers }: LiveState, id: string): readonly string[] {
  return strangers.includes(id) ? strangers.filter((other) => other !== id) : strangers;
}

function withRuns(state: LiveState, running: readonly Running[], strangers: readonly string[]): LiveState {
  const ids = [...running.map(({ job }) => job.id), ...strangers];
  const queue = { ...state.status.queue, current: ids[0] ?? null, running: ids.length };
  return { ...state, running, strangers, status: { ...state.status, queue } };
}

function counted(state: LiveState, queued: number, atMs: number): LiveState {
  const at = Math.max(0, queued);
  return {
    ...state,
    status: { ...state.status, queue: { ...state.status.queue, queued: at } },
    queuedHistory: [...state.queuedHistory, { atMs, queued: at }].slice(-POINTS),
  };
}
