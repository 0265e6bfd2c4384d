import type { NumberedEvent } from '@qwen-supervisor/protocol/events';
import { median, timingsOf } from '@qwen-supervisor/supervisor/verify/timings';
import { expect, test } from 'vitest';

const at = (ms: number) => new Date(Date.UTC(2026, 0, 1) + ms).toISOString();
let seq = 0;
const event = (ms: number, what: object) => ({ run: 'r', seq: ++seq, at: at(ms), ...what }) as NumberedEvent;
const load = (ms: number, component: string) =>
  event(ms, { type: 'load', progress: { component, bytesDone: 0, bytesTotal: 9 } });
const child = (ms: number, state: string) => event(ms, { type: 'child', name: 'inference', state, pid: 1, reason: '' });
const job = (jobId: string, startMs: number) => [
  event(startMs, { type: 'queued', jobId }),
  event(startMs + 10, { type: 'running', jobId }),
  event(startMs + 510, { type: 'step', jobId, step: 1 }),
  event(startMs + 610, { type: 'step', jobId, step: 2 }),
  event(startMs + 710, { type: 'step', jobId, step: 3 }),
  event(startMs + 710, { type: 'decoding', jobId }),
  event(startMs + 1010, { type: 'done', jobId }),
];

test('the time of a load goes to the part that was being loaded, the last until the worker was ready', () => {
  const events = [load(0, 'tokenizer'), load(100, 'transformer'), load(900, 'transformer'), load(2100, 'vae')];
  expect(timingsOf([...events, child(2400, 'ready')]).load).toEqual({ tokenizer: 0.1, transformer: 2, vae: 0.3 });
});

test('the time of a picture goes to the queue, the text, its steps and its decoding; what did not happen is not seen', () => {
  const { queue, text, step, decode } = timingsOf([
    ...job('a', 0),
    ...job('b', 5000),
    event(9000, { type: 'queued', jobId: 'c' }),
  ]);
  // The first step takes what every step takes; what is before it is the text.
  expect([queue, text, step, decode]).toEqual([0.01, 0.4, 0.1, 0.3]);
  expect(timingsOf([])).toEqual({ load: {}, queue: null, text: null, step: null, decode: null });
});

test('a median is one of the values', () => {
  expect([median([]), median([3]), median([9, 1, 5])]).toEqual([null, 3, 5]);
});
