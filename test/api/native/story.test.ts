import { storyOf } from '@qwen-supervisor/api/native/event-routes';
import type { NumberedEvent } from '@qwen-supervisor/protocol/events';
import type { Job } from '@qwen-supervisor/protocol/job';
import { expect, test } from 'vitest';

const NOW = Date.parse('2026-11-27T12:00:00Z');
const job = (status: Job['status'], finishedAt: string | null = null) =>
  ({ id: 'j', status, finishedAt, createdAt: '2026-11-27T11:00:00Z' }) as Job;
let seq = 0;
const event = (type: string, status: Job['status'] = 'running') =>
  ({ type, jobId: 'j', seq: ++seq, ...(type === 'step' ? {} : { job: job(status) }) }) as NumberedEvent;

test('who is new hears the job as it is, then what came meanwhile, its steps left out', () => {
  const moved = event('moved', 'queued');
  const early = [event('step'), moved];
  expect(storyOf(job('queued'), null, early, [], NOW)).toEqual({ asItIs: true, events: [moved], end: null });
});

test('who comes back hears what it has missed, each once', () => {
  const [queued, running] = [event('queued', 'queued'), event('running')];
  const story = storyOf(job('running'), [queued, running], [running], [], NOW);
  expect(story).toEqual({ asItIs: false, events: [queued, running], end: null });
});

test('the end is told once: as it was missed, or as it came, or made up from the job', () => {
  const done = event('done', 'done');
  const ended = job('done', '2026-11-27T11:59:59Z');
  expect(storyOf(ended, [done], [], [done], NOW)).toMatchObject({ end: 'heard', events: [done] });
  expect(storyOf(job('running'), null, [done], [], NOW)).toMatchObject({ end: 'heard', events: [done] });
  expect(storyOf(ended, null, [done], [done], NOW)).toMatchObject({ end: 'to tell', events: [] });
  expect(storyOf(ended, [], [], [], NOW), 'it is about to be told').toMatchObject({ end: 'to tell' });
});

test('who has heard the end and comes back is sent home', () => {
  const done = event('done', 'done');
  expect(storyOf(job('done', '2026-11-27T11:59:59Z'), [], [], [done], NOW)).toBe('told');
  expect(storyOf(job('done', '2026-11-27T11:00:00Z'), [], [], [], NOW), 'long ago').toBe('told');
});
