import type { NumberedEvent } from '@qwen-supervisor/protocol/events';
import type { Job } from '@qwen-supervisor/protocol/job';
import { EventLog } from '@qwen-supervisor/supervisor/records/event-log';
import { expect, test } from 'vitest';

const child = (reason: string) => ({ type: 'child', name: 'api', state: 'ready', pid: 1, reason }) as const;

function subscriber(): { heard: NumberedEvent[]; notify(method: string, event: unknown): void } {
  const heard: NumberedEvent[] = [];
  return { heard, notify: (method, event) => void (method === 'event' && heard.push(event as NumberedEvent)) };
}

test('events are numbered, and reach those who subscribed, until they leave', () => {
  const [log, listener] = [new EventLog(), subscriber()];
  log.publish(child('a'));
  log.subscribe(listener, null);
  log.publish(child('b'));
  log.unsubscribe(listener);
  log.publish(child('c'));
  expect(listener.heard).toMatchObject([{ seq: 2, reason: 'b', at: expect.stringMatching(/Z$/) }]);
});

test('who comes late first hears what is kept after its number; steps are not kept', () => {
  const [log, listener] = [new EventLog(), subscriber()];
  for (const reason of ['a', 'b', 'c']) log.publish(child(reason));
  log.publish({ type: 'step', jobId: 'j', step: 1, steps: 2, preview: null, eta: null });
  log.subscribe(listener, 1);
  expect(listener.heard.map(({ seq }) => seq)).toEqual([2, 3]);
});

test('long prompts and long output do not add up', () => {
  const [log, listener] = [new EventLog(), subscriber()];
  const job = { prompt: 'x'.repeat(20_000), negativePrompt: 'y'.repeat(20_000) } as Job;
  for (let i = 0; i < 1000; i++) log.publish({ type: 'queued', jobId: 'j', job });
  log.subscribe(listener, 0);
  expect(JSON.stringify(listener.heard).length).toBeLessThan(3e6);
  expect(listener.heard.length).toBeGreaterThan(20);
});

test('no more than a thousand are kept', () => {
  const [log, listener] = [new EventLog(), subscriber()];
  for (let i = 0; i < 5000; i++) log.publish(child(String(i)));
  log.subscribe(listener, 0);
  expect(listener.heard).toHaveLength(1000);
  expect(listener.heard[0]).toMatchObject({ seq: 4001 });
});
