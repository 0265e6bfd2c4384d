import type { Job } from '@qwen-supervisor/protocol/job';
import type { Child } from '@qwen-supervisor/supervisor/core/child';
import {
  learnedFrom,
  loadEta,
  queuedEta,
  runningEta,
  secondsUntilClaim,
} from '@qwen-supervisor/supervisor/core/expected-times';
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
  const { run = null, warmUpMsPerWork = null, jobMsPerWork = null, besideMs = { before: 0, after: 0 } } = more;
  const state = initialState(['inference']);
  return withWorker(state, 'inference', {
    child: { ...workerOf(state, 'inference').child, ...child },
    run,
    warmUpMsPerWork,
    jobMsPerWork,
    besideMs,
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
  const place = { position: 2, work: 2560, workAhead: 2560 };
  expect(queuedEta(stateWith({ phase: 'ready' }, { jobMsPerWork: 10 }), 0, place, 0)).toEqual({
    low: 35.8,
    high: 71.7,
  });
  const warm = queuedEta(stateWith({ phase: 'ready' }, { warmUpMsPerWork: 10 }), 0, place, 0);
  expect(warm).toEqual({ low: 20.5, high: 102.4 });
  expect(queuedEta(stateWith({ phase: 'ready' }), 0, place, 0), 'nothing was measured yet').toBeNull();
});

test('a load that is under way comes before everything; a worker that was given up draws nothing', () => {
  const place = { position: 2, work: 0, workAhead: 0 };
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
  const place = { position: 2, work: 1000, workAhead: 9000 };
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
    queuedEta(ready, 0, { position: 2, work: 1000, workAhead: 9000 }, elsewhere)?.high as number;
  expect(etaWith(1)).toBeCloseTo(etaWith(0) * 0.55, 0);
  expect(etaWith(8)).toBeCloseTo(etaWith(0) * 0.2, 0);
});

test('loads of parts, text and decoding are learned beside the steps: a picture of another size waits for them as long', () => {
  // 60 s until the first step has begun, 19 more steps of 2 s each, 30 s after the last.
  const run = running({ step: 20, firstStepAtMs: 62_000, lastStepAtMs: 100_000 });
  const learned = learnedFrom(workerOf(stateWith({}), 'inference'), run, 130_000);
  expect(learned).toEqual({ jobMsPerWork: 40_000 / 2560, besideMs: { before: 60_000, after: 30_000 } });
  const ready = stateWith({ phase: 'ready' }, learned);
  // A quarter of the work: 10 s of steps, and not a quarter of all that is beside them.
  expect(queuedEta(ready, 0, { position: 1, work: 640, workAhead: 0 }, 0)).toEqual({ low: 70, high: 140 });
  expect(queuedEta(ready, 0, { position: 2, work: 640, workAhead: 640 }, 0)).toEqual({ low: 140, high: 280 });
  // Ten seconds on, the parts are still loaded; with the first step they are there.
  const at = (more: Partial<Run>, atMs: number) => {
    const state = stateWith({ phase: 'busy' }, { ...learned, run: running(more) });
    return runningEta(state, atMs, 'a')?.low;
  };
  expect(at({}, 10_000)).toBeCloseTo(0.7 * (50 + 40 + 30));
  expect(at({ step: 1, firstStepAtMs: 62_000, lastStepAtMs: 62_000 }, 62_000)).toBeCloseTo(0.7 * (38 + 30));
});

test('a distilled model of one step is timed as a whole', () => {
  const one = { ...JOB, steps: 1, numInferenceSteps: 1 } as Job;
  const run = running({ job: one, step: 1, firstStepAtMs: 900, lastStepAtMs: 900 });
  expect(learnedFrom(workerOf(stateWith({}), 'inference'), run, 1280).jobMsPerWork).toBe(10);
});
