/** What the status line says. */
import { CHILD_STATES } from '@qwen-supervisor/protocol/status';
import { describe, expect, test } from 'vitest';
import { ago, duration, gigabytes, timeLeft } from '../../packages/web/src/live/eta';
import { type Connection, runningSentence, sentenceOf, titleOf } from '../../packages/web/src/live/sentence';
import type { LiveState } from '../../packages/web/src/live/state';
import { sampleChild } from '../sample-status';
import { job, NOW_MS, SNAPSHOT, stateOf } from './samples';

const OPEN = { kind: 'open' } as Connection;

function withWorker(state: (typeof CHILD_STATES)[number], reason: string, changes: Partial<LiveState> = {}): LiveState {
  const base = { ...stateOf(), ...changes };
  const children = base.status.children.map((child) =>
    child.name === 'inference' ? { ...child, state, reason } : child,
  );
  return { ...base, status: { ...base.status, children } };
}
const say = (state: LiveState, connection = OPEN, nowMs = NOW_MS) => sentenceOf(state, connection, nowMs).text;

test('every state of the worker has a sentence', () => {
  for (const state of CHILD_STATES) {
    const { text, tone } = sentenceOf(withWorker(state, 'a reason'), OPEN, NOW_MS);
    expect(text, state).toMatch(/^[A-Za-z].+\.$/);
    expect(['ok', 'busy', 'warn', 'bad'], state).toContain(tone);
  }
});

test('a load is told by its part, its bytes and its time', () => {
  const base = withWorker('loading', 'loading');
  const model = {
    ...base.status.model,
    state: 'loading',
    component: 'text_encoder',
    bytesDone: 5.1e9,
    bytesTotal: 7.6e9,
    etaSeconds: 9,
  };
  const state = { ...base, status: { ...base.status, model } } as LiveState;
  expect(say(state)).toBe('Loading pocket: text encoder, 5.1 GB of 7.6 GB, about 9 s. Prompts sent now are queued.');
  expect(say(state, OPEN, NOW_MS + 40_000)).toMatch(/^Loading has stood still for 40 s at 5\.1 GB\./);
  expect(sentenceOf(state, OPEN, NOW_MS).progress).toBeCloseTo(5.1 / 7.6);
});

test('a picture whose worker is gone is said to go on at its step', () => {
  const queue = [job('a', { step: 12 })];
  expect(say(withWorker('backing-off', 'killed from outside; next try in 8 s', { queue }))).toBe(
    'Killed from outside; next try in 8 s. The picture goes on at step 12.',
  );
});

test('a picture is read, drawn and decoded, and its time runs on between two steps', () => {
  const running = {
    job: job('a', { step: 3, eta: { low: 30, high: 31 } }),
    preview: null,
    toldAtMs: NOW_MS,
    stepAtMs: null,
  };
  expect(runningSentence({ ...running, phase: 'text' }, NOW_MS)).toBe('Reading the prompt, 31 s left');
  expect(runningSentence({ ...running, phase: 'drawing' }, NOW_MS + 10_000)).toBe('Drawing 3/20, 21 s left');
  expect(runningSentence({ ...running, phase: 'decoding' }, NOW_MS + 99_000)).toBe(
    'Decoding the picture, a moment left',
  );
});

test('a lost connection is told after a moment, with what is certain and nothing else', () => {
  const lost: Connection = { kind: 'lost', sinceMs: NOW_MS, nextTryAtMs: NOW_MS + 5000 };
  expect(say(stateOf(), lost, NOW_MS + 500)).toBe('pocket is ready.');
  expect(say(stateOf(), lost, NOW_MS + 3000)).toMatch(
    /^Connection lost 3 s ago, at .+ Trying again in 2 s\. Jobs already accepted are stored on the server\.$/,
  );
});

test('a queue that stands still is told before everything else', () => {
  const state = stateOf();
  const queue = { ...SNAPSHOT.status.queue, problem: 'the disk is full' };
  expect(say({ ...state, status: { ...state.status, queue } })).toBe('The queue stands still: the disk is full.');
});

test('the clock of another machine, ten minutes off, leaves times as they are', () => {
  const skewed = { ...stateOf(), clockAheadMs: 600_000 };
  const running = {
    job: job('a', { step: 3, eta: { low: 30, high: 30 } }),
    phase: 'drawing',
    preview: null,
    toldAtMs: NOW_MS + 600_000,
    stepAtMs: null,
  } as const;
  expect(say({ ...withWorker('busy', 'drawing', { ...skewed, running: [running] }) }, OPEN, NOW_MS + 1000)).toBe(
    'Drawing 3/20, 29 s left',
  );
});

test('the tab changes with each tenth, and not with each step', () => {
  const title = (step: number) => {
    const running = {
      job: job('a', { step, progress: step / 20 }),
      phase: 'drawing',
      preview: null,
      toldAtMs: 0,
      stepAtMs: null,
    } as const;
    return titleOf({ ...stateOf(), running: [running] }, OPEN).text;
  };
  expect([0, 1, 2, 3].map(title)).toEqual(['0 %', '0 %', '10 %', '10 %'].map((tenth) => `${tenth} · qwen-supervisor`));
});

test('times and bytes are as people read them', () => {
  expect([0.4, 31, 99, 100, 3600, 7300, 200_000].map(duration)).toEqual([
    '0 s',
    '31 s',
    '99 s',
    '2 min',
    '60 min',
    '2 h 2 min',
    '2 days',
  ]);
  expect([4.03e7, 7.64e9, 82e9].map(gigabytes)).toEqual(['40 MB', '7.6 GB', '82.0 GB']);
  expect([timeLeft(null, 0), timeLeft({ low: 20, high: 60 }, 0), timeLeft({ low: 20, high: 300 }, 0)]).toEqual([
    null,
    '20 to 60 s',
    '20 s to 5 min',
  ]);
  expect([ago(NOW_MS - 3000, NOW_MS), ago(NOW_MS - 300, NOW_MS)]).toEqual(['3 s ago', 'now']);
});

describe('of several workers', () => {
  const status = (...states: ['busy' | 'ready' | 'failed' | 'loading', string][]) => {
    const base = stateOf();
    const children = states.map(([state, reason], i) => ({
      ...sampleChild(i === 0 ? 'inference' : `inference-${i + 1}`, state),
      reason,
      device: { device: `cuda:${i}`, name: 'a card', memoryBytes: 24e9, reason: 'asked for' },
    }));
    return { ...base, status: { ...base.status, children: [...children, sampleChild('api', 'ready')] } };
  };
  const run = (id: string, step: number) => ({
    job: job(id, { step, progress: step / 20 }),
    phase: 'drawing' as const,
    preview: null,
    toldAtMs: NOW_MS,
    stepAtMs: null,
  });

  test('the one that is furthest tells what is, and one that does not draw is told beside it', () => {
    expect(say(status(['loading', 'loading'], ['ready', 'ready']))).toBe('pocket is ready.');
    expect(sentenceOf(status(['failed', 'no driver'], ['ready', 'ready']), OPEN, NOW_MS)).toMatchObject({
      tone: 'warn',
      text: 'pocket is ready. Worker on cuda:0 does not draw: no driver.',
    });
    expect(say(status(['ready', 'ready'], ['failed', 'lost']))).toMatch(/Worker 2 on cuda:1 does not draw: lost\.$/);
    expect(sentenceOf(status(['failed', 'x'], ['failed', 'x']), OPEN, NOW_MS).tone).toBe('bad');
  });

  test('what they draw is told together', () => {
    const state = { ...status(['busy', 'drawing'], ['busy', 'drawing']), running: [run('a', 5), run('b', 15)] };
    expect(sentenceOf(state, OPEN, NOW_MS)).toMatchObject({ text: 'Drawing 2 pictures: 5/20, 15/20', progress: 0.5 });
  });
});
