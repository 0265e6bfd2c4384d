/** Where the time of a start and of its pictures went, from the events that told of them. Pure. */
import type { NumberedEvent } from '@qwen-supervisor/protocol/events';
import { MODEL_COMPONENTS, type ModelComponent } from '@qwen-supervisor/protocol/status';

export interface Timings {
  /** Seconds of the load, by its parts. */
  load: Partial<Record<ModelComponent, number>>;
  /** Medians over the pictures, seconds; null where none tells. */
  queue: number | null;
  text: number | null;
  step: number | null;
  decode: number | null;
}

type Of<T extends NumberedEvent['type']> = Extract<NumberedEvent, { type: T }>;

/** `events`: all since the start, in their order. */
export function timingsOf(events: readonly NumberedEvent[]): Timings {
  const ms = ({ at }: NumberedEvent) => Date.parse(at);
  const ofType = <T extends NumberedEvent['type']>(type: T) => events.filter((one): one is Of<T> => one.type === type);
  const loads = ofType('load');
  const ready = ofType('child').find(({ name, state }) => name === 'inference' && state === 'ready');
  const begun = MODEL_COMPONENTS.flatMap((component) => {
    const first = loads.find(({ progress }) => progress.component === component);
    return first ? [{ component, atMs: ms(first) }] : [];
  });
  const load: Timings['load'] = {};
  for (const [i, { component, atMs }] of begun.entries()) {
    const endMs = begun[i + 1]?.atMs ?? (ready ? ms(ready) : atMs);
    load[component] = (endMs - atMs) / 1000;
  }
  const gaps = { queue: [] as number[], text: [] as number[], step: [] as number[], decode: [] as number[] };
  for (const { jobId } of ofType('done')) {
    const own = events.filter((event) => 'jobId' in event && event.jobId === jobId);
    const at = (type: NumberedEvent['type']) => own.filter((event) => event.type === type).map(ms);
    const [[queued], [running], steps, [decoding], [done]] = [
      at('queued'),
      at('running'),
      at('step'),
      at('decoding'),
      at('done'),
    ];
    const between = steps.slice(1).map((atMs, i) => (atMs - (steps[i] as number)) / 1000);
    gaps.step.push(...between);
    if (queued !== undefined && running !== undefined) gaps.queue.push((running - queued) / 1000);
    if (running !== undefined && steps[0] !== undefined)
      gaps.text.push(Math.max(0, (steps[0] - running) / 1000 - (median(between) ?? 0)));
    if (decoding !== undefined && done !== undefined) gaps.decode.push((done - decoding) / 1000);
  }
  const { queue, text, step, decode } = gaps;
  return { load, queue: median(queue), text: median(text), step: median(step), decode: median(decode) };
}

export function median(values: readonly number[]): number | null {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? null;
}
