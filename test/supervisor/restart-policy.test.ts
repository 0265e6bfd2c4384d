import {
  decideRestart,
  type ExitCause,
  NO_HISTORY,
  type RestartHistory,
} from '@qwen-supervisor/supervisor/restart-policy';
import { expect, test } from 'vitest';

const LIMITS = { max: 3, windowMs: 120_000, delayCapMs: 60_000 };

/** Delays of exits of one cause, ten seconds apart, and what came in the end. */
function storm(cause: ExitCause, wasReady: boolean, count: number, limits = LIMITS): (number | string)[] {
  let history: RestartHistory = NO_HISTORY;
  return Array.from({ length: count }, (_, i) => {
    const step = decideRestart(history, { cause, what: 'x', wasReady, atMs: i * 10_000, random: 0.5 }, limits);
    history = step.history;
    return step.decision.kind === 'restart' ? step.decision.delayMs : 'give up';
  });
}

test('a healthy child is back at once, then after growing delays, then given up', () => {
  expect(storm('crashed', true, 4)).toEqual([0, 1000, 2000, 'give up']);
});

test('a child that never became ready waits from the first time on', () => {
  expect(storm('crashed', false, 4)).toEqual([500, 1000, 2000, 'give up']);
});

test('SIGKILL from outside is never charged, and a child that was ready is back within a second', () => {
  const delays = storm('killed', true, 100);
  expect(delays).not.toContain('give up');
  expect(Math.max(...(delays as number[]))).toBeLessThan(1000);
});

test('a fault that a new process would meet again is not tried again', () => {
  expect(storm('permanent', false, 1)).toEqual(['give up']);
});

test('exits that are spread out are never too many, and the delay has a cap', () => {
  const delays = storm('crashed', false, 50, { max: 12, windowMs: 100_000, delayCapMs: 60_000 });
  expect(delays).not.toContain('give up');
  expect(Math.max(...(delays as number[]))).toBe(60_000);
});

test('jitter is a quarter to both sides', () => {
  const delay = (random: number) =>
    decideRestart(NO_HISTORY, { cause: 'crashed', what: 'x', wasReady: false, atMs: 0, random }, LIMITS).decision;
  expect(delay(0)).toMatchObject({ delayMs: 375 });
  expect(delay(0.999999)).toMatchObject({ delayMs: 625 });
});

test('the decision says what happened and what follows', () => {
  const exit = { cause: 'crashed' as const, what: 'ended by SIGSEGV', wasReady: true, atMs: 0, random: 0 };
  expect(decideRestart(NO_HISTORY, exit, LIMITS).decision.reason).toBe('ended by SIGSEGV; starting again at once');
});
