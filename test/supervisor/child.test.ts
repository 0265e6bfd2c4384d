import { CHILD_STATES } from '@qwen-supervisor/protocol/status';
import { type Child, type ChildEffect, type ChildEvent, newChild, stepChild } from '@qwen-supervisor/supervisor/child';
import { expect, test } from 'vitest';

const LIMITS = {
  max: 3,
  windowMs: 120_000,
  delayCapMs: 60_000,
  stopMs: 10_000,
  loadStallMs: 120_000,
  loadLimitMs: 600_000,
  beatLimitMs: 15_000,
};
const exited = (code: number | null, signal: string | null): ChildEvent => ({
  type: 'exited',
  code,
  signal,
  at: '2026-01-01T00:00:00Z',
  random: 0.5,
});

/** Plays [time, event] pairs; gives the child and the effects of the last. */
function play(...events: [number, ChildEvent][]): { child: Child; effects: ChildEffect[] } {
  return events.reduce(({ child }, [atMs, event]) => stepChild(child, event, atMs, LIMITS), {
    child: newChild('inference'),
    effects: [] as ChildEffect[],
  });
}

const START: [number, ChildEvent][] = [
  [0, { type: 'start' }],
  [1, { type: 'spawned', pid: 7 }],
  [2, { type: 'connected' }],
];
const READY: [number, ChildEvent][] = [...START, [1000, { type: 'ready' }]];

test('a child is ready when it says so', () => {
  expect(play(...START).child).toMatchObject({ state: 'loading', pid: 7 });
  expect(play(...READY).child).toMatchObject({ state: 'ready', reason: 'ready' });
});

test('a load that goes on for ten stall limits is not killed while it makes progress', () => {
  const steps = Array.from({ length: 20 }, (_, i): [number, ChildEvent][] => [
    [(i + 1) * 60_000, { type: 'progress', share: (i + 1) / 40 }],
    [(i + 2) * 60_000 - 1, { type: 'tick' }],
  ]).flat();
  expect(play(...START, ...steps).child.state).toBe('loading');
});

test('a load that only pretends to make progress is killed at the load limit', () => {
  const steps = Array.from({ length: 10 }, (_, i): [number, ChildEvent] => [
    (i + 1) * 59_000,
    { type: 'progress', share: 0 },
  ]);
  expect(play(...START, ...steps, [600_001, { type: 'tick' }]).effects).toEqual([]);
  expect(play(...START, ...steps, [600_002, { type: 'tick' }]).effects).toMatchObject([{ type: 'kill' }]);
});

test('a load that stalls is killed at the stall limit, and tried again', () => {
  const stalled = play(...START, [120_001, { type: 'tick' }]);
  expect(stalled.effects).toEqual([]);
  const killed = play(...START, [120_002, { type: 'tick' }], [120_003, exited(null, 'SIGKILL')]);
  expect(killed.child).toMatchObject({ state: 'backing-off', restarts: 1, deadlineMs: 120_503 });
  expect(killed.child.reason).toMatch(/^MODEL_LOAD_STALLED: no progress for 120 s.*; starting again in 0\.5 s$/);
});

test('a worker that stops beating is killed, whether it draws or not', () => {
  const beating = play(...READY, [10_000, { type: 'beat' }], [20_000, { type: 'tick' }]);
  expect(beating.effects).toEqual([]);
  const silent = play(...READY, [1001, { type: 'assigned' }], [16_000, { type: 'tick' }]);
  expect(silent.effects).toMatchObject([{ type: 'kill' }]);
  expect(silent.child.reason).toBe('no sign of life for 15 s');
});

test('a permanent fault ends in failed, with its code as the reason', () => {
  const error = { code: 'MODEL_INVALID', message: 'broken', hint: '' } as const;
  const failed = play(...START, [3, { type: 'fatal', error, permanent: true }], [4, exited(65, null)]);
  expect(failed.child).toMatchObject({ state: 'failed', reason: 'MODEL_INVALID: broken', deadlineMs: null });
});

test('a stop asks first, then kills the group, then the tree, until the exit is seen', () => {
  const asked = play(...READY, [2000, { type: 'stop' }]);
  expect(asked.effects).toEqual([{ type: 'ask-stop', name: 'inference' }]);
  const group = play(...READY, [2000, { type: 'stop' }], [12_000, { type: 'tick' }]);
  expect(group.effects).toMatchObject([{ type: 'kill', tree: false }]);
  const tree = play(...READY, [2000, { type: 'stop' }], [12_000, { type: 'tick' }], [13_000, { type: 'tick' }]);
  expect(tree.effects).toMatchObject([{ type: 'kill', tree: true }]);
  const done = play(...READY, [2000, { type: 'stop' }], [2100, exited(0, null)]);
  expect(done.child).toMatchObject({ state: 'stopped', restarts: 0, deadlineMs: null });
});

test('a stop during a load or a back-off does not wait', () => {
  expect(play(...START, [3, { type: 'stop' }]).effects).toMatchObject([{ type: 'kill', tree: false }]);
  const crashed = [...START, [3, exited(1, null)]] as [number, ChildEvent][];
  expect(play(...crashed, [4, { type: 'stop' }]).child.state).toBe('stopped');
});

test('a child that is being killed for a hang does not come back when a stop arrives meanwhile', () => {
  const child = play(
    ...READY,
    [16_000, { type: 'tick' }],
    [16_001, { type: 'stop' }],
    [16_002, exited(null, 'SIGKILL')],
  ).child;
  expect(child.state).toBe('stopped');
});

test('every state answers every event', () => {
  const error = { code: 'INTERNAL', message: '', hint: '' } as const;
  const events: ChildEvent[] = [
    { type: 'start' },
    { type: 'spawned', pid: 1 },
    { type: 'connected' },
    { type: 'progress', share: 0.5 },
    { type: 'ready' },
    { type: 'assigned' },
    { type: 'idle' },
    { type: 'beat' },
    { type: 'fatal', error, permanent: false },
    exited(1, null),
    { type: 'stop' },
    { type: 'tick' },
  ];
  for (const state of CHILD_STATES) {
    for (const event of events) {
      const { child } = stepChild({ ...newChild('inference'), state }, event, 1, LIMITS);
      expect(CHILD_STATES, `${state} on ${event.type}`).toContain(child.state);
    }
  }
});
