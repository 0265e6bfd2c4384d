import type { ExitCause } from '@qwen-supervisor/protocol/status';
import {
  afterSuccess,
  decideRestart,
  NO_HISTORY,
  type RestartHistory,
  type UnplannedExit,
} from '@qwen-supervisor/supervisor/core/restart-policy';
import { expect, test } from 'vitest';

const LIMITS = { max: 3, windowMs: 120_000, delayCapMs: 60_000, hasNextDevice: false };
const EXIT: UnplannedExit = {
  cause: 'crashed',
  what: 'x',
  wasReady: true,
  heldJob: false,
  startMs: 0,
  atMs: 0,
  random: 0.5,
};

/** Delays of `count` exits, ten seconds apart unless said otherwise, and what came in the end. */
function storm(exit: Partial<UnplannedExit>, count: number, limits = LIMITS, everyMs = 10_000): (number | string)[] {
  let history: RestartHistory = NO_HISTORY;
  return Array.from({ length: count }, (_, i) => {
    const step = decideRestart(history, { ...EXIT, ...exit, atMs: i * everyMs }, limits);
    history = step.history;
    const { decision } = step;
    return decision.kind === 'restart' ? decision.delayMs : decision.kind.replace('-', ' ');
  });
}

test.each<[ExitCause, (number | string)[], (number | string)[]]>([
  ['crashed', [0, 1000, 2000, 'give up'], [500, 1000, 2000, 'give up']],
  ['clean', [0, 1000, 2000, 'give up'], [500, 1000, 2000, 'give up']],
  ['hung', [0, 1000, 2000, 'give up'], [500, 1000, 2000, 'give up']],
  ['memory-limit', [0, 1000, 2000, 'give up'], [500, 1000, 2000, 'give up']],
  ['load-failed', [2000, 4000, 8000, 'give up'], [2000, 4000, 8000, 'give up']],
  ['stalled', [2000, 4000, 8000, 'give up'], [2000, 4000, 8000, 'give up']],
  ['oom-killed', [1000, 2000, 4000, 'give up'], [1000, 2000, 4000, 'give up']],
  ['device-memory', [5000, 'give up'], [5000, 'give up']],
  ['device', [0, 2000, 4000, 'give up'], [1000, 2000, 4000, 'give up']],
  ['permanent', ['give up'], ['give up']],
  ['killed', [0, 400, 400, 400, 400], [500, 1000, 2000, 4000, 8000]],
])('%s: delays of a child that had been ready, and of one that had not', (cause, ready, notReady) => {
  expect(storm({ cause, wasReady: true }, ready.length)).toEqual(ready);
  expect(storm({ cause, wasReady: false }, notReady.length)).toEqual(notReady);
});

test.each<[ExitCause, number | string]>([
  ['device', 0],
  ['device-memory', 5000],
])('%s: what a device did twice in a row leads to the next, where there is one', (cause, first) => {
  expect(storm({ cause }, 2, { ...LIMITS, hasNextDevice: true })).toEqual([first, 'next device']);
  const once = decideRestart(NO_HISTORY, { ...EXIT, cause }, { ...LIMITS, hasNextDevice: true });
  const later = decideRestart(afterSuccess(once.history), { ...EXIT, cause }, { ...LIMITS, hasNextDevice: true });
  expect(later.decision.kind, 'a picture was drawn between the two').toBe('restart');
});

test('a device that never works is given up, although its delays are longer than the window', () => {
  const rare = storm({ cause: 'device', wasReady: false }, 4, { ...LIMITS, windowMs: 1 }, 100_000);
  expect(rare).toEqual([1000, 2000, 4000, 'give up']);
  const crashes = storm({ cause: 'crashed' }, 4, { ...LIMITS, windowMs: 1 }, 100_000);
  expect(crashes.at(-1), 'any other fault keeps its window').not.toBe('give up');
});

test('SIGKILL from outside is never charged, and a child that was ready is back within a second', () => {
  const delays = storm({ cause: 'killed' }, 1000);
  expect(delays).not.toContain('give up');
  expect(Math.max(...(delays as number[]))).toBeLessThan(1000);
});

test('a child without a budget is never given up, but for a permanent fault', () => {
  const unlimited = { ...LIMITS, max: null, delayCapMs: 1000 };
  expect(storm({ wasReady: false }, 500, unlimited as never)).not.toContain('give up');
  expect(storm({ cause: 'permanent' }, 1, unlimited as never)).toEqual(['give up']);
});

test('deaths laid to jobs are not charged, until so many jobs in a row die that it must be the worker', () => {
  const delays = storm({ heldJob: true }, 10);
  expect(delays.indexOf('give up')).toBe(6 + LIMITS.max);
  let history = NO_HISTORY;
  for (let i = 0; i < 100; i++) {
    const { decision, history: next } = decideRestart(history, { ...EXIT, heldJob: true, atMs: i * 1000 }, LIMITS);
    expect(decision.kind).toBe('restart');
    // Every other job is a good one.
    history = i % 2 === 1 ? afterSuccess(next) : next;
  }
});

test('the window of the budget grows with the time that a start takes', () => {
  // Four loads of three minutes each never fall into two minutes; they are given up all the same.
  expect(storm({ cause: 'stalled', wasReady: false }, 4, LIMITS, 180_000)).not.toContain('give up');
  expect(storm({ cause: 'stalled', wasReady: false, startMs: 180_000 }, 4, LIMITS, 180_000)).toContain('give up');
});

test('a day of crashes, each right after its restart, is few starts', () => {
  let [history, atMs, starts] = [NO_HISTORY, 0, 0];
  const patient = { ...LIMITS, max: 1000, windowMs: 1000 };
  while (atMs < 86_400_000) {
    const { decision, history: next } = decideRestart(history, { ...EXIT, wasReady: false, atMs }, patient);
    history = next;
    if (decision.kind !== 'restart') break;
    atMs += decision.delayMs + 10;
    starts++;
  }
  expect(starts).toBeLessThan(1500);
});

test('exits that are spread out are never too many, and the delay has a cap', () => {
  const delays = storm({ wasReady: false }, 50, { ...LIMITS, max: 12, windowMs: 100_000 });
  expect(delays).not.toContain('give up');
  expect(Math.max(...(delays as number[]))).toBe(60_000);
});

test('jitter is a quarter to both sides', () => {
  const delay = (random: number) => decideRestart(NO_HISTORY, { ...EXIT, wasReady: false, random }, LIMITS).decision;
  expect(delay(0)).toMatchObject({ delayMs: 375 });
  expect(delay(0.999999)).toMatchObject({ delayMs: 625 });
});

test('the decision says what happened and what follows', () => {
  const exit = { ...EXIT, what: 'ended by SIGSEGV' };
  expect(decideRestart(NO_HISTORY, exit, LIMITS).decision.reason).toBe('ended by SIGSEGV; starting again at once');
});
