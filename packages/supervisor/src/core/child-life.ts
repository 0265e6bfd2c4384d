/** How a child loads, lives and works: cells of child-table.ts. Pure. */
import { type Child, type ChildLimits, type ChildStep, type Of, stay, until } from './child.js';
import { askToStop, FIRST_LOOK, kill } from './child-ends.js';
import {
  hangReason,
  hasProgressed,
  hasWorked,
  type LoadClock,
  loadDeadline,
  newStepClock,
  tickStepClock,
  unseenMs,
} from './child-health.js';
import { afterSuccess } from './restart-policy.js';

/** Healthy for this long, or for three starts if that is longer, forgives earlier failures. */
const HEALTHY_MS = 600_000;

export function connected(child: Child, _event: Of<'connected'>, atMs: number, limits: ChildLimits): ChildStep {
  // The API has nothing to load and says when it serves.
  if (child.name === 'api') return stay(child);
  const load = { startedMs: atMs, movedAtMs: atMs, progressedAtMs: atMs, share: 0, component: 'process' };
  const deadline = until(loadDeadline(load, limits));
  return stay({ ...child, phase: 'loading', reason: 'loading the model', load, ...deadline });
}

export function progress(child: Child, event: Of<'progress'>, atMs: number, limits: ChildLimits): ChildStep {
  const { component, bytesDone, bytesTotal } = event.progress;
  const share = bytesDone / Math.max(1, bytesTotal);
  return moveLoad(child, { ...child.load, movedAtMs: atMs, progressedAtMs: atMs, share, component }, atMs, limits);
}

/** ONNX Runtime says nothing while it loads: what the process reads, holds and computes tells whether it goes on. */
export function beatLoading(child: Child, { vitals }: Of<'beat'>, atMs: number, limits: ChildLimits): ChildStep {
  const elapsedMs = atMs - child.beatAtMs;
  const seen = { ...child, vitals, beatAtMs: atMs, load: shifted(child.load, unseenMs(elapsedMs)) };
  const killed = overHardLimit(seen, atMs, limits);
  if (killed) return killed;
  if (!hasWorked(child.vitals, vitals, elapsedMs)) return stay(seen);
  const progressedAtMs = hasProgressed(child.vitals, vitals) ? atMs : seen.load.progressedAtMs;
  return moveLoad(seen, { ...seen.load, movedAtMs: atMs, progressedAtMs }, atMs, limits);
}

/** A load whose limit is over is not given more time by signs of work. */
function moveLoad(child: Child, load: LoadClock, atMs: number, limits: ChildLimits): ChildStep {
  const deadlineMs = loadDeadline(load, limits);
  return stay({ ...child, load, ...(deadlineMs > atMs || child.looks === 0 ? until(deadlineMs) : {}) });
}

/** Time in which nobody watched counts for nothing. */
function shifted(load: LoadClock, ms: number): LoadClock {
  const { startedMs, movedAtMs, progressedAtMs } = load;
  const later = { startedMs: startedMs + ms, movedAtMs: movedAtMs + ms, progressedAtMs: progressedAtMs + ms };
  return { ...load, ...later };
}

export function becomeReady(child: Child, event: Of<'ready'>, atMs: number, limits: ChildLimits): ChildStep {
  const { name, pid, incarnation } = child;
  const ready: Child = {
    ...child,
    phase: 'ready',
    reason: 'ready',
    timesReady: child.timesReady + 1,
    healthySinceMs: atMs,
    startMs: Math.max(child.startMs, atMs - child.spawnedAtMs),
    beatAtMs: atMs,
    steps: newStepClock(event.msPerToken, atMs),
    ...untilBeat(atMs, limits),
  };
  const measures = name !== 'api' && pid !== null;
  return { child: ready, effects: measures ? [{ type: 'measure-device', name, pid, incarnation }] : [] };
}

const untilBeat = (atMs: number, { beatLimitMs }: ChildLimits) => until(atMs + FIRST_LOOK * beatLimitMs);

export function beat(child: Child, { vitals }: Of<'beat'>, atMs: number, limits: ChildLimits): ChildStep {
  const { healthySinceMs, history, startMs } = child;
  const steps = tickStepClock(child.steps, child.vitals, vitals, atMs - child.beatAtMs, atMs);
  const isForgiven = history.streak > 0 && atMs - (healthySinceMs ?? atMs) > Math.max(HEALTHY_MS, 3 * startMs);
  const seen: Child = {
    ...child,
    vitals,
    beatAtMs: atMs,
    steps,
    rssAtReady: child.rssAtReady ?? vitals.rssBytes,
    history: isForgiven ? afterSuccess(history) : history,
    ...untilBeat(atMs, limits),
  };
  const killed = overHardLimit(seen, atMs, limits);
  if (killed) return killed;
  const hang = child.phase === 'busy' ? hangReason(steps, limits.stepLimitMs, atMs) : null;
  if (hang) return kill(seen, { to: 'judgement', cause: 'hung', reason: hang }, atMs);
  const { softBytes } = limits;
  // What the model alone needs, a new process would need too.
  if (softBytes === null || vitals.rssBytes <= softBytes || (seen.rssAtReady ?? 0) > softBytes) return stay(seen);
  const drain = `uses ${gigabytes(vitals.rssBytes)} of memory, more than the soft limit`;
  if (child.phase === 'busy') return stay({ ...seen, drain });
  return askToStop(seen, { to: 'restart', reason: drain }, false, atMs, limits);
}

function overHardLimit(child: Child, atMs: number, limits: ChildLimits): ChildStep | null {
  const rss = child.vitals?.rssBytes ?? 0;
  if (limits.hardBytes === null || rss <= limits.hardBytes) return null;
  const reason = `used ${gigabytes(rss)} of memory, more than the hard limit`;
  return kill(child, { to: 'judgement', cause: 'memory-limit', reason }, atMs);
}

export function assign(child: Child, { tokens }: Of<'assigned'>, atMs: number): ChildStep {
  const steps = { ...child.steps, movedAtMs: atMs, workedAtMs: atMs, tokens, step: null };
  return stay({ ...child, phase: 'busy', reason: 'drawing', steps });
}

/** Before, beats may still carry the step of the job before; and a resumed one has not made its first steps now. */
export function begin(child: Child, { step }: Of<'begun'>, atMs: number): ChildStep {
  return stay({ ...child, steps: { ...child.steps, movedAtMs: atMs, workedAtMs: atMs, step } });
}

/** A finished job proves health. */
export function finishJob(child: Child, _event: Of<'idle'>, atMs: number, limits: ChildLimits): ChildStep {
  const { drain } = child;
  const well = { healthySinceMs: atMs, history: afterSuccess(child.history) };
  const idle: Child = { ...child, ...well, phase: 'ready', reason: 'ready', drain: null };
  return drain === null ? stay(idle) : askToStop(idle, { to: 'restart', reason: drain }, false, atMs, limits);
}

/** The job has ended before its worker did: the death is not laid to it. */
export function putJobDown(child: Child): ChildStep {
  return stay({ ...child, during: child.during === 'busy' ? 'ready' : child.during });
}

export function holds(child: Child, { memory }: Of<'holds'>): ChildStep {
  return stay({ ...child, device: memory });
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`;
}
