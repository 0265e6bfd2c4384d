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

/** Reads `room` events, then nothing until it is let. */
function slowReader(room: number) {
  const { heard, notify } = subscriber();
  let [left, isMissed, wake] = [room, 0, () => {}];
  return {
    heard,
    notify(method: string, event: unknown) {
      if (method === 'missed') isMissed++;
      else left--;
      notify(method, event);
    },
    isBehind: () => left <= 0,
    drained: () =>
      new Promise<void>((resolve) => {
        wake = resolve;
      }),
    read(more: number) {
      left = more;
      wake();
      return new Promise((resolve) => setTimeout(resolve));
    },
    missed: () => isMissed,
  };
}

test('who reads slowly is sent no more than it takes, and hears everything in the end', async () => {
  const [log, slow, quick] = [new EventLog(), slowReader(3), subscriber()];
  log.subscribe(slow, null);
  log.subscribe(quick, null);
  for (let i = 0; i < 500; i++) log.publish(child(String(i)));
  expect([slow.heard.length, quick.heard.length]).toEqual([3, 500]);
  await slow.read(100);
  expect(slow.heard).toHaveLength(103);
  await slow.read(1000);
  expect(slow.heard.map(({ seq }) => seq)).toEqual(quick.heard.map(({ seq }) => seq));
  expect(slow.missed()).toBe(0);
});

test('who is too far behind is told that it has missed some, and goes on with what is kept', async () => {
  const [log, slow] = [new EventLog(), slowReader(3)];
  log.subscribe(slow, null);
  for (let i = 0; i < 5000; i++) log.publish(child(String(i)));
  await slow.read(10_000);
  expect(slow.missed()).toBe(1);
  expect([slow.heard.length, slow.heard.at(-1)?.seq]).toEqual([1003, 5000]);
});

test('many events at once wait for who reads them, and not for who does not', async () => {
  const [log, reading, standing] = [new EventLog(), slowReader(10), slowReader(10)];
  log.subscribe(reading, null);
  log.subscribe(standing, null);
  let isDone = false;
  const published = log.publishAll(Array.from({ length: 3000 }, (_, i) => child(String(i)))).then(() => {
    isDone = true;
  });
  while (!isDone) await reading.read(500);
  await published;
  await reading.read(10_000);
  expect([reading.heard.length, reading.missed(), standing.heard.length]).toEqual([3000, 0, 10]);
});
