import type { Job } from '@qwen-supervisor/protocol/job';
import { loadEta, secondsUntilClaim } from '@qwen-supervisor/supervisor/expected-times';
import { initialState, type State } from '@qwen-supervisor/supervisor/supervisor';
import { expect, test } from 'vitest';

function stateWith(worker: Partial<State['children']['inference']>, more: Partial<State> = {}): State {
  const state = { ...initialState(), ...more };
  return { ...state, children: { ...state.children, inference: { ...state.children.inference, ...worker } } };
}

const load = (share: number) => ({ startedMs: 0, movedAtMs: 0, progressedAtMs: 0, share, component: 'vae' });

test('a load that took 30 s for a quarter needs 90 s more; before its first byte nothing is said', () => {
  expect(loadEta(stateWith({ state: 'loading', load: load(0.25) }), 30_000)).toBe(90);
  expect(loadEta(stateWith({ state: 'loading', load: load(0) }), 30_000)).toBeNull();
  expect(loadEta(stateWith({ state: 'ready' }), 30_000)).toBeNull();
});

test('a place in the queue is free when the running job ends, at the speed of the jobs before', () => {
  const current = { job: { steps: 20 } as Job, attempt: 1, step: 15, firstStep: 0, sinceMs: 0 };
  expect(secondsUntilClaim(stateWith({ state: 'busy' }, { current, jobSeconds: 40 }), 0)).toBe(10);
  expect(secondsUntilClaim(stateWith({ state: 'ready' }, { jobSeconds: 40 }), 0)).toBe(1);
});

test('while the worker is away it is free when that is back: after its back-off and a start as long as the last', () => {
  const away = stateWith({ state: 'backing-off', deadlineMs: 8000, startMs: 180_000 });
  expect(secondsUntilClaim(away, 2000)).toBe(6 + 180);
  expect(secondsUntilClaim(stateWith({ state: 'loading', load: load(0.5), startMs: 180_000 }), 40_000)).toBe(40);
});
