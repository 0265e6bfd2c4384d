import type { Job } from '@qwen-supervisor/protocol/job';
import type { WorkerName } from '@qwen-supervisor/protocol/status';
import type { Effect, Event } from '@qwen-supervisor/supervisor/core/events';
import { progressOf } from '@qwen-supervisor/supervisor/core/expected-times';
import {
  initialState,
  type Limits,
  namesOf,
  runs,
  type State,
  submitRefusal,
  unloadRefusal,
  withWorker,
  workerOf,
} from '@qwen-supervisor/supervisor/core/state';
import { decide } from '@qwen-supervisor/supervisor/core/supervisor';
import { describe, expect, test } from 'vitest';
import { LIMITS as CHILD_LIMITS, exited } from './child-events.js';

const LIMITS: Limits = {
  api: CHILD_LIMITS,
  workers: { inference: CHILD_LIMITS, 'inference-2': CHILD_LIMITS },
  onStop: 'checkpoint',
};
const FINISH: Limits = { ...LIMITS, onStop: 'finish' };
const STEP = {
  type: 'job-step',
  worker: 'inference',
  incarnation: 1,
  atMs: 1,
  jobId: 'a',
  attempt: 1,
  preview: null,
} as const;
const { type: _type, preview: _preview, ...RUN } = STEP;
const STEP_1 = { ...STEP, step: 1 };
const JOB = { id: 'a', attempts: 1, step: 0, steps: 5, width: 128, height: 128 } as Job;

const play = (...events: Event[]) => playWith(LIMITS, ...events);

function playWith(limits: Limits, ...events: Event[]): { state: State; effects: Effect[] } {
  return events.reduce(({ state }, event) => decide(state, event, limits), {
    state: initialState(['inference']),
    effects: [] as Effect[],
  });
}

const child = (name: 'inference' | 'api', event: Extract<Event, { type: 'child' }>['event']): Event => ({
  type: 'child',
  name,
  incarnation: 1,
  atMs: 1,
  event,
});
const READY: Event[] = [
  { type: 'start', atMs: 0 },
  child('inference', { type: 'spawned', pid: 7 }),
  child('inference', { type: 'connected' }),
  { type: 'loaded', worker: 'inference', incarnation: 1, atMs: 1, seconds: 1, msPerToken: 1 },
  { type: 'claimed', worker: 'inference', atMs: 1, job: null },
];
const DRAWING: Event[] = [
  ...READY,
  { type: 'job-queued', atMs: 1 },
  { type: 'claimed', worker: 'inference', atMs: 1, job: JOB },
];

test('a ready worker gets the job that the store hands out, in that attempt', () => {
  expect(play(...READY, { type: 'job-queued', atMs: 1 }).effects).toEqual([{ type: 'claim', worker: 'inference' }]);
  expect(play(...DRAWING).effects).toContainEqual({ type: 'dispatch', worker: 'inference', job: JOB, attempt: 1 });
});

test.each([
  [exited(null, 'SIGSEGV'), 0, 'own'],
  [exited(1, null), 3, 'own'],
  [exited(null, 'SIGKILL'), 0, 'outside'],
  [exited(null, 'SIGTERM'), 0, 'outside'],
  [exited(null, 'SIGKILL'), 3, 'outside-after-progress'],
] as const)('a death by %o after %i steps is laid to: %s', (event, completed, death) => {
  const steps = completed > 0 ? [{ ...STEP, step: completed } as const] : [];
  expect(play(...DRAWING, ...steps, child('inference', event)).effects).toContainEqual(
    expect.objectContaining({ type: 'release', jobId: 'a', death }),
  );
});

test('a death during a planned stop is laid to nobody', () => {
  const { effects } = play(...DRAWING, { type: 'stop', atMs: 2, how: 'orderly' }, child('inference', exited(0, null)));
  expect(effects).toContainEqual(expect.objectContaining({ type: 'release', jobId: 'a', death: 'none' }));
});

test('a job whose attempt began after step 3 has not got on until step 4', () => {
  const begun = {
    worker: 'inference',
    incarnation: 1,
    atMs: 1,
    jobId: 'a',
    attempt: 1,
    step: 3,
    startedOverReason: null,
    device: 'cpu',
    model: 'm',
  } as const;
  const resumed: Event[] = [...DRAWING, { type: 'job-begun', ...begun }];
  expect(play(...resumed).effects).toEqual([
    {
      type: 'begin',
      worker: 'inference',
      jobId: 'a',
      attempt: 1,
      start: { step: 3, startedOverReason: null, device: 'cpu', model: 'm' },
    },
  ]);
  const killed = child('inference', exited(null, 'SIGKILL'));
  expect(play(...resumed, killed).effects).toContainEqual(expect.objectContaining({ death: 'outside', step: 3 }));
  const step: Event = { ...STEP, step: 4 };
  expect(play(...resumed, step, killed).effects).toContainEqual(
    expect.objectContaining({ death: 'outside-after-progress', step: 4 }),
  );
});

test('an unplanned exit is recorded with its cause, the job in hand and what was decided; a planned one is not', () => {
  const { effects } = play(...DRAWING, child('inference', exited(null, 'SIGSEGV')));
  expect(effects).toContainEqual({
    type: 'record-crash',
    crash: expect.objectContaining({
      child: 'inference',
      cause: 'crashed',
      signal: 'SIGSEGV',
      during: 'busy',
      job: { id: 'a', attempt: 1, step: 0 },
      reason: 'ended by SIGSEGV; starting again at once',
    }),
  });
  const planned = play(
    ...READY,
    { type: 'restart', atMs: 2, name: 'inference', reason: 'asked' },
    child('inference', exited(0, null)),
  );
  expect(planned.effects.map(({ type }) => type)).toEqual(['spawn']);
});

test('a stop that finishes first lets the running job end, begins no other, and then stops', () => {
  const stop: Event = { type: 'stop', atMs: 2, how: 'orderly' };
  expect(playWith(FINISH, ...DRAWING, stop).effects).toEqual([]);
  const outcome = { status: 'done', step: 5, imageId: 'a', file: '', sha256: '', bytes: 1 } as const;
  const ended: Event = {
    type: 'job-finished',
    worker: 'inference',
    incarnation: 1,
    atMs: 3,
    jobId: 'a',
    attempt: 1,
    outcome,
  };
  const { effects, state } = playWith(FINISH, ...DRAWING, { type: 'job-queued', atMs: 2 }, stop, ended);
  expect(effects.map(({ type }) => type)).toEqual(['finish', 'ask-stop', 'kill']);
  expect(state).toMatchObject({ phase: 'stopping' });
  expect(playWith(FINISH, ...READY, stop).effects.map(({ type }) => type)).toEqual(['ask-stop', 'kill']);
  // A claim that hangs on a full disk does not hold it up.
  const claiming = playWith(FINISH, ...READY, { type: 'job-queued', atMs: 1 }, stop);
  expect(claiming.effects.map(({ type }) => type)).toEqual(['ask-stop', 'kill']);
});

test('a store that fails ends the supervisor with its error, after the children', () => {
  const error = { code: 'JOB_STORE_UNUSABLE', message: 'full', hint: '' } as const;
  const failed: Event[] = [...READY, { type: 'store-failed', atMs: 2, error }];
  expect(play(...failed).effects.map(({ type }) => type)).toEqual(['ask-stop', 'kill']);
  const ended = play(...failed, child('api', exited(null, 'SIGKILL')), child('inference', exited(0, null)));
  expect(ended.effects).toEqual([{ type: 'exit', error }]);
});

test('a port that is taken when the API first listens ends the supervisor; later it is a fault like any other', () => {
  const error = { code: 'PORT_IN_USE', message: 'taken', hint: '' } as const;
  const taken = play(...READY, child('api', { type: 'fatal', error, permanent: true }));
  expect(taken.state).toMatchObject({ phase: 'stopping', exitError: error });
});

test('a model that was unloaded stays so until a job wants it, or somebody asks; one in use is not unloaded', () => {
  const unload: Event = { type: 'unload-model', atMs: 2 };
  expect(play(...DRAWING, unload).effects).toEqual([]);
  expect(play(...READY, unload).effects.map(({ type }) => type)).toEqual(['ask-stop']);
  const unloaded = [...READY, unload, child('inference', exited(0, null))];
  expect(play(...unloaded).state.workers.inference?.child.phase).toBe('stopped');
  for (const wanted of ['job-queued', 'load-model'] as const)
    expect(play(...unloaded, { type: wanted, atMs: 3 }).effects.map(({ type }) => type)).toEqual(['spawn']);
});

test('a job that comes while the model is being unloaded brings it back', () => {
  const unloading: Event[] = [...READY, { type: 'unload-model', atMs: 2 }, { type: 'job-queued', atMs: 3 }];
  expect(play(...unloading, child('inference', exited(0, null))).effects.map(({ type }) => type)).toEqual(['spawn']);
});

test('an interrupted job keeps the step of its picture', () => {
  const keep: Event = { type: 'cancel-running', atMs: 2, jobId: 'a', keep: true };
  expect(play(...DRAWING, keep).effects).toEqual([
    { type: 'cancel-run', worker: 'inference', jobId: 'a', attempt: 1, keep: true },
  ]);
  const outcome = { status: 'done', step: 3, imageId: 'a', file: '', sha256: '', bytes: 1 } as const;
  const ended: Event = {
    type: 'job-finished',
    worker: 'inference',
    incarnation: 1,
    atMs: 3,
    jobId: 'a',
    attempt: 1,
    outcome,
  };
  expect(play(...DRAWING, keep, ended).effects).toContainEqual(expect.objectContaining({ type: 'finish', step: 3 }));
});

test('a running worker that is told to begin again says what it was asked, and its last words are kept apart', () => {
  const twice = play(...READY, child('inference', { type: 'connected' }));
  expect(twice.effects).toEqual([expect.objectContaining({ type: 'note-impossible', event: 'connected' })]);
});

test('steps and the decoding of a run are told; those of a run that is over are not', () => {
  expect(play(...DRAWING, STEP_1).effects).toEqual([
    { type: 'tell-step', jobId: 'a', step: 1, steps: 5, preview: null },
  ]);
  const decoding = { ...RUN, type: 'job-decoding' } as const;
  expect(play(...DRAWING, decoding).effects).toEqual([{ type: 'tell-decoding', jobId: 'a' }]);
  for (const over of [{ attempt: 2 }, { incarnation: 0 }, { jobId: 'b' }]) {
    expect(play(...DRAWING, { ...STEP_1, ...over }).effects).toEqual([]);
    expect(play(...DRAWING, { ...decoding, ...over }).effects).toEqual([]);
  }
});

test('a step that takes long tells how it gets on; one that is quick does not', () => {
  const vitals = { rssBytes: 1, readBytes: 1, cpuSeconds: 1, work: 1 };
  const beat = (atMs: number, step: number, stepShare: number): Event => ({
    ...child('inference', { type: 'beat', vitals: { ...vitals, step, stepShare } }),
    atMs,
  });
  expect(play(...DRAWING, beat(1500, 0, 0.25)).effects).toEqual([]);
  expect(play(...DRAWING, beat(5000, 0, 0.25)).effects).toEqual([{ type: 'tell-progress', jobId: 'a' }]);
  expect(play(...DRAWING, beat(5000, 0, 0.25), beat(6000, 0, 0.25)).effects, 'nothing new').toEqual([]);
  const { state } = play(...DRAWING, beat(5000, 0, 0.25));
  expect(runs(state).map(progressOf)).toEqual([0.05]);
  expect(play(...DRAWING, beat(9000, 1, 0.5)).effects, 'its step is not told yet').toEqual([]);
  expect(runs(play(...DRAWING, beat(5000, 0, 0.25), STEP_1).state).map(progressOf)).toEqual([0.2]);
});

describe('two workers', () => {
  const NAMES = ['inference', 'inference-2'] as const;
  const both = (...events: Event[]) =>
    events.reduce(({ state }, event) => decide(state, event, LIMITS), {
      state: initialState([...NAMES]),
      effects: [] as Effect[],
    });
  const of = (name: WorkerName, event: Extract<Event, { type: 'child' }>['event']): Event => ({
    type: 'child',
    name,
    incarnation: 1,
    atMs: 1,
    event,
  });
  const up = (worker: WorkerName): Event[] => [
    of(worker, { type: 'spawned', pid: 7 }),
    of(worker, { type: 'connected' }),
    { type: 'loaded', worker, incarnation: 1, atMs: 1, seconds: 1, msPerToken: 1 },
    { type: 'claimed', worker, atMs: 1, job: null },
  ];
  // The first asks again when the second has become ready.
  const UP: Event[] = [
    { type: 'start', atMs: 0 },
    ...NAMES.flatMap(up),
    { type: 'claimed', worker: 'inference', atMs: 1, job: null },
  ];
  const types = (effects: Effect[]) => effects.map(({ type }) => type);
  const giveUp = (name: WorkerName) => [
    of(name, { type: 'fatal', error: { code: 'MODEL_INVALID', message: 'bad', hint: '' }, permanent: true }),
    of(name, exited(1, null)),
  ];

  test('ask for a job each, the first of them first, and draw at the same time', () => {
    const queued: Event[] = [...UP, { type: 'job-queued', atMs: 1 }];
    expect(both(...queued).effects).toEqual(NAMES.map((worker) => ({ type: 'claim', worker })));
    const drawing: Event[] = [
      ...queued,
      { type: 'claimed', worker: 'inference', atMs: 1, job: JOB },
      { type: 'claimed', worker: 'inference-2', atMs: 1, job: { ...JOB, id: 'b' } },
    ];
    expect(runs(both(...drawing).state).map(({ job }) => job.id)).toEqual(['a', 'b']);
    expect(both(...drawing, { type: 'cancel-running', atMs: 2, jobId: 'b', keep: false }).effects).toEqual([
      { type: 'cancel-run', worker: 'inference-2', jobId: 'b', attempt: 1, keep: false },
    ]);
  });

  test('that are unloaded together stay so, whichever ends first', () => {
    const unload: Event[] = [...UP, { type: 'unload-model', atMs: 2 }];
    expect(types(both(...unload).effects)).toEqual(['ask-stop', 'ask-stop']);
    const ended = both(...unload, of('inference-2', exited(0, null)), of('inference', exited(0, null)));
    expect(ended.effects).toEqual([]);
    expect(namesOf(ended.state).map((name) => workerOf(ended.state, name).child.phase)).toEqual(['stopped', 'stopped']);
  });

  test('of which one is given up go on, and only when both are is the failure told', () => {
    const one = both(...UP, ...giveUp('inference-2'));
    expect(types(one.effects)).not.toContain('announce-failure');
    expect(submitRefusal(one.state, false)).toBeNull();
    // What the other left to it is for the other now.
    expect(one.effects).toContainEqual({ type: 'claim', worker: 'inference' });
    const none = both(...UP, ...giveUp('inference-2'), ...giveUp('inference'));
    expect(types(none.effects)).toContain('announce-failure');
    expect(submitRefusal(none.state, false)).toMatchObject({ code: 'WORKER_FAILED' });
    expect(submitRefusal(none.state, true), 'other machines draw').toBeNull();
  });

  test('of which one still draws while everything is to stop afterwards begin nothing else', () => {
    const begun: Event[] = [
      ...UP,
      { type: 'job-queued', atMs: 1 },
      { type: 'claimed', worker: 'inference', atMs: 1, job: JOB },
      { type: 'claimed', worker: 'inference-2', atMs: 1, job: { ...JOB, id: 'b' } },
      { type: 'job-queued', atMs: 1 },
      { type: 'stop', atMs: 2, how: 'orderly' },
    ];
    const ended = { worker: 'inference-2', incarnation: 1, atMs: 3, jobId: 'b', attempt: 1 } as const;
    const outcome = { status: 'cancelled' } as const;
    const { effects } = [...begun, { type: 'job-finished', ...ended, outcome } as Event].reduce(
      ({ state }, event) => decide(state, event, FINISH),
      { state: initialState([...NAMES]), effects: [] as Effect[] },
    );
    expect(types(effects)).toEqual(['finish']);
  });

  test('of which one waits for its device give back what the other holds', () => {
    const waiting = both(...UP, of('inference-2', exited(null, 'SIGSEGV')), of('inference-2', exited(1, null))).state;
    const backingOff = withWorker(waiting, 'inference-2', {
      child: { ...workerOf(waiting, 'inference-2').child, phase: 'backing-off' },
      claim: 'none',
    });
    const idle = withWorker(backingOff, 'inference', { claim: 'none' });
    expect(unloadRefusal(idle)).toBeNull();
    expect(unloadRefusal(withWorker(idle, 'inference', { claim: 'wanted' }))).toMatchObject({ code: 'MODEL_IN_USE' });
  });

  test('one that becomes ready asks for a job, and so do the others: it may leave what they can draw', () => {
    const other = both(...UP, of('inference-2', exited(null, 'SIGSEGV'))).state;
    const next = { worker: 'inference-2', incarnation: 2, atMs: 9 } as const;
    const events: Event[] = [
      { type: 'claimed', worker: 'inference', atMs: 8, job: null },
      { type: 'child', name: 'inference-2', incarnation: 2, atMs: 9, event: { type: 'spawned', pid: 8 } },
      { type: 'child', name: 'inference-2', incarnation: 2, atMs: 9, event: { type: 'connected' } },
      { type: 'loaded', ...next, seconds: 1, msPerToken: 1 },
    ];
    const { effects } = events.reduce(({ state }, event) => decide(state, event, LIMITS), {
      state: other,
      effects: [] as Effect[],
    });
    expect(effects.filter(({ type }) => type === 'claim')).toEqual(NAMES.map((worker) => ({ type: 'claim', worker })));
  });

  test('one that becomes ready asks for a job, whatever was asked before it came', () => {
    const [first, second] = NAMES.map(up) as [Event[], Event[]];
    const early: Event[] = [{ type: 'start', atMs: 0 }, ...first];
    expect(both(...early, ...second.slice(0, 3)).effects).toContainEqual({ type: 'claim', worker: 'inference-2' });
  });
});
