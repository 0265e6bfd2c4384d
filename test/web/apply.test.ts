/** What events of the server make of the page's state. */
import type { Job } from '@qwen-supervisor/protocol/job';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { apply } from '../../packages/web/src/live/apply';
import type { LiveState } from '../../packages/web/src/live/state';
import { sampleChild } from '../sample-status';
import { job, NOW_MS, stateOf } from './samples';

type Told = [name: string, data: unknown];

const heard = (state: LiveState, ...events: Told[]) =>
  events.reduce((now, [name, data]) => apply(now, name, data, NOW_MS), state);
const running = (id: string, attempt = 1, step = 0): Told => [
  'running',
  { id, attempt, step, startedOverReason: null, device: 'cpu', model: 'pocket' },
];
const step = (id: string, i: number): Told => ['step', { id, i, n: 20, eta: { low: 1, high: 2 }, preview: `p${i}` }];
const done = (id: string): Told => ['done', job(id, { status: 'done', step: 20, progress: 1 })];

/** The whole life of a job, with a death of its worker in the middle. */
function life(id: string): Told[] {
  return [
    ['queued', job(id)],
    running(id),
    step(id, 1),
    step(id, 2),
    ['requeued', { id, attempt: 1, step: 2, reason: 'killed' }],
    running(id, 2, 2),
    step(id, 3),
    ['decoding', { id }],
    done(id),
  ];
}

test('a job goes from the queue into the worker, and from there to those that have ended', () => {
  const [queued, begun, drawn] = [1, 3, 9].map((count) => heard(stateOf(), ...life('a').slice(0, count)));
  expect(queued?.queue.map(({ id }) => id)).toEqual(['a']);
  expect(queued?.status.queue).toMatchObject({ queued: 1, current: null });
  expect(begun?.running).toMatchObject([{ phase: 'drawing', preview: 'p1', job: { step: 1, model: 'pocket' } }]);
  expect(begun?.status.queue).toMatchObject({ queued: 0, running: 1, current: 'a' });
  expect(drawn).toMatchObject({ running: [], queue: [], ended: [{ id: 'a', status: 'done' }] });
  expect(drawn?.status.queue).toMatchObject({ queued: 0, running: 0, current: null });
});

test('a job whose worker has died is first in the queue, keeps its step, and tells where it went on', () => {
  const before = heard(stateOf({ queue: [job('b')], status: { ...stateOf().status } }), ...life('a').slice(0, 5));
  expect(before.queue.map(({ id, step }) => [id, step])).toEqual([
    ['a', 2],
    ['b', 0],
  ]);
  const after = heard(before, running('a', 2, 2));
  expect(after.running[0]?.job).toMatchObject({ step: 2, resumedAtStep: 2, attempts: 2 });
});

test('a step that is heard late, or again, takes nothing back', () => {
  const state = heard(stateOf(), ...life('a').slice(0, 4), step('a', 1));
  expect(state.running[0]?.job.step).toBe(2);
});

test('every event may come twice, and any number of them again: the state is the same as without', () => {
  const story = [...life('a'), ['queued', job('b', { position: 1 })] as Told, running('b'), step('b', 1)];
  const expected = heard(stateOf(), ...story);
  fc.assert(
    fc.property(fc.array(fc.nat(story.length - 1), { maxLength: 20 }), (again) => {
      // Replays begin anywhere that was heard already, and go on from there in order.
      let state = stateOf();
      for (const [i, event] of story.entries()) {
        state = heard(state, event);
        if (again.includes(i)) state = heard(state, event);
      }
      const { stepSeconds: _, queuedHistory: __, ...rest } = state;
      const { stepSeconds: ___, queuedHistory: ____, ...wanted } = expected;
      expect(rest).toEqual(wanted);
    }),
  );
});

test('however events are mixed, a job is in one place, and steps and numbers make sense', () => {
  const events = fc.array(fc.constantFrom(...life('a'), ...life('b'), ...life('c')), { maxLength: 60 });
  fc.assert(
    fc.property(events, (mixed) => {
      const state = heard(stateOf(), ...mixed);
      const ids = [
        ...state.queue.map(({ id }) => id),
        ...state.ended.map(({ id }) => id),
        ...state.running.map(({ job: { id } }) => id),
      ];
      expect(new Set(ids).size).toBe(ids.length);
      expect(state.status.queue.queued).toBeGreaterThanOrEqual(0);
      for (const run of state.running) expect(run.job.step).toBeLessThanOrEqual(run.job.steps);
      expect(state.status.queue.running).toBe(state.running.length + state.strangers.length);
    }),
  );
});

test('a job that is moved is where the server says', () => {
  const queue = ['a', 'b', 'c'].map((id, i) => job(id, { position: i + 1 }));
  const moved = heard(stateOf({ queue }), ['moved', job('c', { position: 1 })]);
  expect(moved.queue.map(({ id }) => id)).toEqual(['c', 'a', 'b']);
  expect(heard(moved, ['moved', job('a', { position: 3 })]).queue.map(({ id }) => id)).toEqual(['c', 'b', 'a']);
});

test('stars and trash of the last pictures are those of the server', () => {
  const ended: Job[] = [job('a', { status: 'done' }), job('b', { status: 'done' })];
  const change = (state: LiveState, change: string, ids = ['a']) => heard(state, ['pictures', { ids, change }]);
  const starred = change(stateOf({ ended }), 'starred');
  expect(starred.ended.map(({ starred }) => starred)).toEqual([true, false]);
  expect(change(starred, 'trashed').ended[0]?.trashedAt).not.toBeNull();
  expect(change(change(starred, 'trashed'), 'restored').ended[0]?.trashedAt).toBeNull();
  expect(change(starred, 'removed').ended.map(({ id }) => id)).toEqual(['b']);
});

test('what a newer server tells and this page does not know changes nothing', () => {
  const state = stateOf();
  expect(heard(state, ['constructor', {}], ['teleported', { id: 'a' }])).toBe(state);
});

test('a job beyond those that are known is counted, and its drawing is noted so that it is asked for', () => {
  const status = { ...stateOf().status, queue: { queued: 70, running: 0, current: null, problem: null } };
  const state = heard(stateOf({ status }), running('far'));
  expect(state.status.queue).toMatchObject({ current: 'far' });
  expect(heard(state, done('far')).status.queue).toMatchObject({ queued: 70, current: null });
  expect(heard(stateOf({ status }), ['cancelled', job('far', { status: 'cancelled' })]).status.queue.queued).toBe(69);
});

test('two workers draw beside each other, and the end of one picture leaves the other', () => {
  const both = heard(stateOf(), ['queued', job('a')], ['queued', job('b')], running('a'), running('b'), step('b', 2));
  expect(both.running.map(({ job: { id, step } }) => [id, step])).toEqual([
    ['a', 0],
    ['b', 2],
  ]);
  expect(both.status.queue).toMatchObject({ queued: 0, running: 2, current: 'a' });
  const one = heard(both, done('a'));
  expect(one.running.map((run) => run.job.id)).toEqual(['b']);
  expect(one.status.queue).toMatchObject({ running: 1, current: 'b' });
});

test('a load is that of its worker; of several the one that is furthest says when a picture can be drawn', () => {
  const child = (name: string, state: string): Told => ['child', { name, state, pid: 1, reason: state }];
  const loading = (name: string, bytes: number): Told => [
    'loading',
    { child: name, component: 'transformer', bytes, total: 100 },
  ];
  const base = stateOf();
  const children = [
    sampleChild('inference', 'loading'),
    sampleChild('inference-2', 'loading'),
    sampleChild('api', 'ready'),
  ];
  const start = {
    ...base,
    status: { ...base.status, children, model: { ...base.status.model, state: 'loading' as const } },
  };
  const both = heard(start, loading('inference', 10), loading('inference-2', 90));
  expect(both.status.children.map(({ load }) => load?.bytesDone ?? null)).toEqual([10, 90, null]);
  const ready = heard(both, child('inference-2', 'ready'), loading('inference', 20));
  expect(ready.status.model.state).toBe('ready');
  expect(ready.status.children.map(({ load }) => load?.bytesDone ?? null)).toEqual([20, null, null]);
});

test('a snapshot between the claim of a job and its beginning is put right by that', () => {
  const claimed = job('a', { status: 'running', attempts: 2, devices: ['cuda:0'], step: 5 });
  const before = stateOf({ running: [claimed] });
  const after = heard(before, [
    'running',
    { id: 'a', attempt: 2, step: 5, startedOverReason: null, device: 'cpu', model: 'm' },
  ]);
  expect(after.running[0]?.job).toMatchObject({ devices: ['cuda:0', 'cpu'], model: 'm', resumedAtStep: 5 });
});
