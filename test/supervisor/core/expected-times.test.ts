import type { Job } from '@qwen-supervisor/protocol/job';
import type { Child } from '@qwen-supervisor/supervisor/core/child';
import { loadEta, queuedEta, runningEta, secondsUntilClaim } from '@qwen-supervisor/supervisor/core/expected-times';
import {
  initialState,
  type Run,
  type State,
  type Worker,
  withWorker,
  workerOf,
} from '@qwen-supervisor/supervisor/core/state';
import { expect, test } from 'vitest';

function stateWith(child: Partial<Child>, more: Partial<Omit<Worker, 'child'>> = {}): State {
  const { run = null, warmUpMsPerWork = null, jobMsPerWork = null } = more;
  const state = initialState(['inference']);
  return withWorker(state, 'inference', {
    child: { ...workerOf(state, 'inference').child, ...child },
    run,
    warmUpMsPerWork,
    jobMsPerWork,
  });
}
const childWith = (child: Partial<Child>) => workerOf(stateWith(child), 'inference').child;

const JOB = {
  id: 'a',
  width: 128,
  height: 128,
  numInferenceSteps: 20,
  steps: 20,
  trueCfgScale: 4,
  strength: null,
} as Job;
const running = (more: Partial<Run>): Run => ({
  job: JOB,
  attempt: 1,
  step: 0,
  firstStep: 0,
  sinceMs: 0,
  stepShare: 0,
  firstStepAtMs: 0,
  lastStepAtMs: 0,
  ...more,
});

const load = (share: number) => ({ startedMs: 0, movedAtMs: 0, progressedAtMs: 0, share, component: 'vae' });

test('a load that took 30 s for a quarter needs 90 s more; before its first byte nothing is said', () => {
  expect(loadEta(childWith({ phase: 'loading', load: load(0.25) }), 30_000)).toBe(90);
  expect(loadEta(childWith({ phase: 'loading', load: load(0) }), 30_000)).toBeNull();
  expect(loadEta(childWith({ phase: 'ready' }), 30_000)).toBeNull();
});

test('a place in the queue is free when the running job ends, at the speed of the jobs before', () => {
  // 64 tokens, 20 guided steps: 2560 units of work.
  const before = { jobMsPerWork: 40_000 / 2560 };
  const run = running({ step: 2 });
  expect(secondsUntilClaim(stateWith({ phase: 'busy' }, { ...before, run }), 0)).toBe(36);
  expect(secondsUntilClaim(stateWith({ phase: 'ready' }, before), 0)).toBe(1);
});

test('while the worker is away it is free when that is back: after its back-off and a start as long as the last', () => {
  const away = stateWith({ phase: 'backing-off', deadlineMs: 8000, startMs: 180_000 });
  expect(secondsUntilClaim(away, 2000)).toBe(6 + 180);
  expect(secondsUntilClaim(stateWith({ phase: 'loading', load: load(0.5), startMs: 180_000 }), 40_000)).toBe(40);
});

test('after three steps a job is timed by its own pace: 1 s a step, 16 to go, and the picture', () => {
  const run = running({ step: 4, firstStepAtMs: 5000, lastStepAtMs: 8000 });
  const eta = runningEta(stateWith({ phase: 'busy' }, { run, jobMsPerWork: 1e6 }), 8000, 'a');
  expect(eta).toEqual({ low: 14.4, high: 20.4 });
  // Half a step later there is half a step less to go.
  expect(runningEta(stateWith({ phase: 'busy' }, { run }), 8500, 'a')?.low).toBe(14);
});

test('before that, and in the queue, by the jobs before it; and before those, by the warm-up, more vaguely', () => {
  const place = { work: 2560, workAhead: 2560 };
  expect(queuedEta(stateWith({ phase: 'ready' }, { jobMsPerWork: 10 }), 0, place, 0)).toEqual({
    low: 35.8,
    high: 71.7,
  });
  const warm = queuedEta(stateWith({ phase: 'ready' }, { warmUpMsPerWork: 10 }), 0, place, 0);
  expect(warm).toEqual({ low: 20.5, high: 102.4 });
  expect(queuedEta(stateWith({ phase: 'ready' }), 0, place, 0), 'nothing was measured yet').toBeNull();
});

test('a load that is under way comes before everything; a worker that was given up draws nothing', () => {
  const place = { work: 0, workAhead: 0 };
  const loading = stateWith({ phase: 'loading', load: load(0.5) }, { jobMsPerWork: 10 });
  expect(queuedEta(loading, 30_000, place, 0)).toEqual({ low: 30, high: 30 });
  expect(queuedEta(stateWith({ phase: 'failed' }, { jobMsPerWork: 10 }), 0, place, 0)).toBeNull();
});

test('two workers have what waits between them, and the slower one takes less of it', () => {
  const both = initialState(['inference', 'inference-2']);
  const at = (ms: number, other: number) => {
    const first = withWorker(both, 'inference', { jobMsPerWork: ms, child: childWith({ phase: 'ready' }) });
    return withWorker(first, 'inference-2', { jobMsPerWork: other, child: childWith({ phase: 'ready' }) });
  };
  const place = { work: 1000, workAhead: 9000 };
  const alone = queuedEta(stateWith({ phase: 'ready' }, { jobMsPerWork: 10 }), 0, place, 0)?.high as number;
  expect(queuedEta(at(10, 10), 0, place, 0)?.high).toBeCloseTo(alone * 0.55, 0);
  const uneven = queuedEta(at(10, 100), 0, place, 0)?.high as number;
  expect(uneven).toBeGreaterThan(alone * 0.55);
  expect(uneven).toBeLessThan(alone * 1.1);
});

test('one that is given up takes no job, however fast it once started', () => {
  const both = initialState(['inference', 'inference-2']);
  const gone = withWorker(both, 'inference', { child: childWith({ phase: 'failed', startMs: 5000 }) });
  const slow = { jobMsPerWork: 600_000 / 2560, run: running({}), child: childWith({ phase: 'busy' }) };
  expect(secondsUntilClaim(withWorker(gone, 'inference-2', slow), 0)).toBe(600);
});

test('workers of other machines take their share of what is ahead, and none of the picture itself', () => {
  const ready = stateWith({ phase: 'ready' }, { jobMsPerWork: 10 });
  const etaWith = (elsewhere: number) =>
    queuedEta(ready, 0, { work: 1000, workAhead: 9000 }, elsewhere)?.high as number;
  expect(etaWith(1)).toBeCloseTo(etaWith(0) * 0.55, 0);
  expect(etaWith(8)).toBeCloseTo(etaWith(0) * 0.2, 0);
});
