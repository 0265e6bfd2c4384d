import type { Job } from '@qwen-supervisor/protocol/job';
import { type Effect, type Event, initialState, type State, step } from '@qwen-supervisor/supervisor/supervisor';
import { expect, test } from 'vitest';

const CHILD = { max: 3, windowMs: 60_000, delayCapMs: 1000, stopMs: 1000, loadStallMs: 5000, loadLimitMs: 9000 };
const LIMITS = { inference: { ...CHILD, beatLimitMs: 3000 }, api: { ...CHILD, beatLimitMs: null } };
const JOB = { id: 'a', attempts: 1, steps: 5 } as Job;

function play(...events: Event[]): { state: State; effects: Effect[] } {
  return events.reduce(({ state }, event) => step(state, event, LIMITS), {
    state: initialState(),
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
const exited = (code: number | null, signal: string | null) =>
  ({ type: 'exited', code, signal, at: '', random: 0 }) as const;
const READY: Event[] = [
  { type: 'start', atMs: 0 },
  child('inference', { type: 'connected' }),
  { type: 'loaded', incarnation: 1, atMs: 1, seconds: 1 },
];
const DRAWING: Event[] = [...READY, { type: 'job-queued', atMs: 1 }, { type: 'claimed', atMs: 1, job: JOB }];

test('a ready worker gets the job that the store hands out, in that attempt', () => {
  expect(play(...READY, { type: 'job-queued', atMs: 1 }).effects).toEqual([{ type: 'claim' }]);
  expect(play(...DRAWING).effects).toContainEqual({ type: 'dispatch', job: JOB, attempt: 1 });
});

test.each([
  [exited(null, 'SIGSEGV'), 0, 'own'],
  [exited(1, null), 3, 'own'],
  [exited(null, 'SIGKILL'), 0, 'outside'],
  [exited(null, 'SIGTERM'), 0, 'outside'],
  [exited(null, 'SIGKILL'), 3, 'outside-after-progress'],
] as const)('a death by %o after %i steps is laid to: %s', (event, completed, death) => {
  const steps =
    completed > 0
      ? [{ type: 'job-step', incarnation: 1, atMs: 1, jobId: 'a', attempt: 1, step: completed } as const]
      : [];
  expect(play(...DRAWING, ...steps, child('inference', event)).effects).toContainEqual(
    expect.objectContaining({ type: 'release', jobId: 'a', death }),
  );
});

test('a death during a planned stop is laid to nobody', () => {
  const { effects } = play(...DRAWING, { type: 'stop', atMs: 2 }, child('inference', exited(0, null)));
  expect(effects).toContainEqual(expect.objectContaining({ type: 'release', jobId: 'a', death: 'none' }));
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
  expect(taken.state).toMatchObject({ stopping: true, exitError: error });
});
