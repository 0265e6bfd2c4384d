/** Limits, events and histories of a child that several specifications share. */
import type { Vitals } from '@qwen-supervisor/protocol/status';
import { type Child, type ChildEffect, type ChildEvent, newChild } from '@qwen-supervisor/supervisor/core/child';
import { decideChild } from '@qwen-supervisor/supervisor/core/child-table';

export const LIMITS = {
  max: 3,
  windowMs: 120_000,
  delayCapMs: 60_000,
  stopMs: 10_000,
  loadStallMs: 120_000,
  loadLimitMs: 600_000,
  beatLimitMs: 15_000,
  stepLimitMs: 120_000,
  softBytes: null,
  hardBytes: null,
  hasNextDevice: false,
};

export const exited = (code: number | null, signal: string | null, oomKilled = false) =>
  ({ type: 'exited', code, signal, oomKilled, at: '2026-01-01T00:00:00Z', random: 0.5 }) as const;

export const loading = (share: number) =>
  ({ type: 'progress', progress: { component: 'transformer', bytesDone: share * 1000, bytesTotal: 1000 } }) as const;

export const beat = (vitals: Partial<Vitals> = {}) =>
  ({
    type: 'beat',
    vitals: { rssBytes: 1e9, readBytes: 0, cpuSeconds: 0, step: 0, stepShare: 0, work: 0, ...vitals },
  }) as const;

export type Played = [atMs: number, event: ChildEvent];

/** Plays the events; gives the child and the effects of the last. */
export function play(events: Played[], limits = LIMITS): { child: Child; effects: ChildEffect[] } {
  return events.reduce(({ child }, [atMs, event]) => decideChild(child, event, atMs, limits), {
    child: newChild('inference'),
    effects: [] as ChildEffect[],
  });
}

export const START: Played[] = [
  [0, { type: 'start' }],
  [1, { type: 'spawned', pid: 7 }],
  [2, { type: 'connected' }],
];
/** 1 ms for a token of a step. */
export const READY: Played[] = [...START, [1000, { type: 'ready', msPerToken: 1 }]];
/** A picture of 64 tokens. */
export const BUSY: Played[] = [...READY, [1001, { type: 'assigned', tokens: 64 }], [1001, { type: 'begun', step: 0 }]];

/**
 * Beats once a second, from `fromMs` until before `toMs`; each with these vitals, given the seconds since the first.
 */
export function beats(fromMs: number, toMs: number, vitalsAt: (seconds: number) => Partial<Vitals>): Played[] {
  const count = Math.max(0, Math.ceil((toMs - fromMs) / 1000));
  return Array.from({ length: count }, (_, i) => [fromMs + i * 1000, beat(vitalsAt(i))]);
}
