/**
 * What Prometheus reads, as far as the supervisor knows it: it outlives every other process, so that its counters do
 * not begin anew with them. Names follow the conventions of Prometheus: unit in the name, `_total` for counters.
 */
import type { NumberedEvent } from '@qwen-supervisor/protocol/events';
import { isTerminal } from '@qwen-supervisor/protocol/job';
import { Counter, gauge, Histogram, type Labels } from '@qwen-supervisor/protocol/metrics';
import { CHILD_STATES, MACHINE_STATES, type SystemStatus } from '@qwen-supervisor/protocol/status';

const PREFIX = 'qwen_supervisor_';
const STEP_BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
const WAIT_BOUNDS = [0.01, 0.1, 1, 5, 15, 60, 300, 900, 3600, 14_400];

export class Metrics {
  readonly #ended = new Counter(`${PREFIX}jobs_ended_total`, 'Jobs that have ended, by how.');
  readonly #exits = new Counter(
    `${PREFIX}child_exits_total`,
    'Unplanned exits of child processes, each followed by a restart unless given up.',
  );
  readonly #wait = new Histogram(
    `${PREFIX}job_wait_seconds`,
    'Time from the acceptance of a job to the worker that draws it.',
    WAIT_BOUNDS,
  );
  readonly #step = new Histogram(`${PREFIX}step_seconds`, 'Time of a denoising step.', STEP_BOUNDS);
  /** When jobs were queued, until they are begun; milliseconds. */
  readonly #queuedAt = new Map<string, number>();
  /** When running jobs last got on; milliseconds. */
  readonly #steppedAt = new Map<string, number>();

  /** What happens on another machine is counted there: whoever adds up all of them counts it once. */
  observe(event: NumberedEvent, isOurs: boolean): void {
    const atMs = Date.parse(event.at);
    if (!isOurs) return this.#observeOther(event, atMs);
    if (event.type === 'crash') this.#exits.add({ child: event.crash.child, cause: event.crash.cause });
    if (event.type === 'queued') this.#queuedAt.set(event.jobId, atMs);
    if (event.type === 'running') {
      const queuedAt = this.#queuedAt.get(event.jobId);
      if (queuedAt !== undefined) this.#wait.observe({}, (atMs - queuedAt) / 1000);
      this.#queuedAt.delete(event.jobId);
      this.#steppedAt.set(event.jobId, atMs);
    }
    if (event.type === 'step') {
      const before = this.#steppedAt.get(event.jobId);
      if (before !== undefined) this.#step.observe({}, (atMs - before) / 1000);
      this.#steppedAt.set(event.jobId, atMs);
    }
    if (event.type === 'requeued') this.#steppedAt.delete(event.jobId);
    if ('job' in event && isTerminal(event.job.status)) {
      this.#queuedAt.delete(event.jobId);
      this.#steppedAt.delete(event.jobId);
      this.#ended.add({ status: event.job.status });
    }
  }

  /** A job that was accepted there may be drawn here. */
  #observeOther(event: NumberedEvent, atMs: number): void {
    if (event.type === 'queued') this.#queuedAt.set(event.jobId, atMs);
    if (event.type === 'running' || ('job' in event && isTerminal(event.job.status)))
      this.#queuedAt.delete(event.jobId);
  }

  text({ queue, children, model, machines }: SystemStatus): string {
    const states = children.flatMap(({ name: child, state: now }) =>
      CHILD_STATES.map((state): [Labels, number] => [{ child, state }, Number(state === now)]),
    );
    const memory = children.flatMap(({ name, rssBytes }): [Labels, number][] =>
      rssBytes === null ? [] : [[{ process: name }, rssBytes]],
    );
    const devices = children.flatMap(({ name: child, device }): [Labels, number][] =>
      device === null ? [] : [[{ child, device: device.device, name: device.name, reason: device.reason }, 1]],
    );
    const held = children.flatMap(({ name: child, device, deviceBytes }): [Labels, number][] =>
      device === null ? [] : [[{ child }, deviceBytes]],
    );
    const shared = machines.flatMap(({ name: machine, state: now }) =>
      MACHINE_STATES.map((state): [Labels, number] => [{ machine, state }, Number(state === now)]),
    );
    const drained = machines.map(({ name: machine, isDrained }): [Labels, number] => [{ machine }, Number(isDrained)]);
    const jobs: [Labels, number][] = [
      [{ status: 'queued' }, queue.queued],
      [{ status: 'running' }, queue.running],
    ];
    return [
      gauge(`${PREFIX}jobs`, 'Jobs that have not ended, by status.', jobs),
      this.#ended.text(),
      this.#wait.text(),
      this.#step.text(),
      gauge(
        `${PREFIX}model_load_seconds`,
        'Time of the last complete model load.',
        model.loadSeconds === null ? [] : [[{}, model.loadSeconds]],
      ),
      this.#exits.text(),
      gauge(`${PREFIX}child_state`, '1 for the state that a child process is in.', states),
      gauge(`${PREFIX}process_resident_memory_bytes`, 'Memory by process: resident, of the worker what is its own.', [
        [{ process: 'supervisor' }, process.memoryUsage.rss()],
        ...memory,
      ]),
      gauge(
        `${PREFIX}device_info`,
        'What computes pictures, for each worker: 1, with its name and why it was chosen.',
        devices,
      ),
      gauge(
        `${PREFIX}device_memory_bytes`,
        'Memory of a graphics device that a worker held when it became ready.',
        held,
      ),
      gauge(
        `${PREFIX}machine_state`,
        '1 for the state of a machine that shares the queue; every one tells all.',
        shared,
      ),
      gauge(`${PREFIX}machine_drained`, '1 for a machine that an operator lets take no more jobs.', drained),
    ].join('');
  }
}
