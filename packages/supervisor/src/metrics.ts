/**
 * What Prometheus reads, as far as the supervisor knows it: it outlives every other process, so that its counters do not
 * begin anew with them. Names follow the conventions of Prometheus: unit in the name, `_total` for counters.
 */
import type { NumberedEvent } from '@qwen-supervisor/protocol/events';
import { isTerminal } from '@qwen-supervisor/protocol/job';
import { CHILD_STATES, type SystemStatus } from '@qwen-supervisor/protocol/status';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';

const PREFIX = 'qwen_supervisor_';
const STEP_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
const WAIT_BUCKETS = [0.01, 0.1, 1, 5, 15, 60, 300, 900, 3600, 14_400];

export class Metrics {
  readonly #registry = new Registry();
  readonly #ended: Counter<'status'>;
  readonly #wait: Histogram;
  readonly #step: Histogram;
  readonly #exits: Counter<'child' | 'cause'>;
  readonly #jobs: Gauge<'status'>;
  readonly #state: Gauge<'child' | 'state'>;
  readonly #memory: Gauge<'process'>;
  readonly #deviceMemory: Gauge;
  readonly #load: Gauge;
  /** When jobs were queued, until they are begun; milliseconds. */
  readonly #queuedAt = new Map<string, number>();
  /** When the running job last got on. */
  #stepped: { jobId: string; atMs: number } | null = null;

  constructor() {
    const registers = [this.#registry];
    const named = <N extends string>(name: string, help: string, labelNames: N[] = []) => ({
      name: PREFIX + name,
      help,
      labelNames,
      registers,
    });
    this.#jobs = new Gauge(named('jobs', 'Jobs that have not ended, by status.', ['status']));
    this.#ended = new Counter(named('jobs_ended_total', 'Jobs that have ended, by how.', ['status']));
    this.#wait = new Histogram({
      ...named('job_wait_seconds', 'Time from the acceptance of a job to its first step.'),
      buckets: WAIT_BUCKETS,
    });
    this.#step = new Histogram({ ...named('step_seconds', 'Time of a denoising step.'), buckets: STEP_BUCKETS });
    this.#load = new Gauge(named('model_load_seconds', 'Time of the last complete model load.'));
    this.#exits = new Counter(
      named('child_exits_total', 'Unplanned exits of child processes, each followed by a restart unless given up.', [
        'child',
        'cause',
      ]),
    );
    this.#state = new Gauge(named('child_state', '1 for the state that a child process is in.', ['child', 'state']));
    this.#memory = new Gauge(named('process_resident_memory_bytes', 'Resident memory, by process.', ['process']));
    this.#deviceMemory = new Gauge(
      named('device_memory_bytes', 'Memory of a graphics device that the worker held when it became ready.'),
    );
  }

  /** Called as any subscriber of events is. */
  notify(method: string, event: unknown): void {
    if (method === 'event') this.#observe(event as NumberedEvent);
  }

  #observe(event: NumberedEvent): void {
    const atMs = Date.parse(event.at);
    if (event.type === 'crash') this.#exits.inc({ child: event.crash.child, cause: event.crash.cause });
    if (event.type === 'queued') this.#queuedAt.set(event.jobId, atMs);
    if (event.type === 'running') {
      const queuedAt = this.#queuedAt.get(event.jobId);
      if (queuedAt !== undefined) this.#wait.observe((atMs - queuedAt) / 1000);
      this.#queuedAt.delete(event.jobId);
      this.#stepped = { jobId: event.jobId, atMs };
    }
    if (event.type === 'step') {
      if (this.#stepped?.jobId === event.jobId) this.#step.observe((atMs - this.#stepped.atMs) / 1000);
      this.#stepped = { jobId: event.jobId, atMs };
    }
    if ('job' in event && isTerminal(event.job.status)) {
      this.#queuedAt.delete(event.jobId);
      this.#ended.inc({ status: event.job.status });
    }
  }

  text(status: SystemStatus): Promise<string> {
    const { queue, children, model } = status;
    this.#jobs.set({ status: 'queued' }, queue.queued);
    this.#jobs.set({ status: 'running' }, queue.running);
    this.#memory.set({ process: 'supervisor' }, process.memoryUsage.rss());
    for (const { name: child, state: now, rssBytes } of children) {
      for (const state of CHILD_STATES) this.#state.set({ child, state }, Number(state === now));
      this.#memory.set({ process: child }, rssBytes ?? 0);
    }
    this.#deviceMemory.set(children.reduce((sum, child) => sum + child.deviceBytes, 0));
    if (model.loadSeconds !== null) this.#load.set(model.loadSeconds);
    return this.#registry.metrics();
  }
}
