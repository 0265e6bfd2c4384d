/** Waits for jobs of ours, and shows how they get on. */
import { CodedError, isStoreAway, workerGivenUp } from '@qwen-supervisor/protocol/errors';
import { isTerminal, type Job } from '@qwen-supervisor/protocol/job';
import { type ChildState, mainWorker } from '@qwen-supervisor/protocol/status';
import progress from 'cli-progress';
import { answered, type Client, type Listener } from './client.js';
import { printError } from './printer.js';

/** Columns of what stands beside the bar. */
const BESIDE_BAR = 44;
/** From one look at a supervisor that says nothing to the next. */
const LOOK_MS = 5000;
/** States of a worker that keep a job waiting, and have a reason. */
const WAITING = new Set<ChildState>(['backing-off', 'blocked', 'failed']);

/** What the bar shows: one picture by its steps, several by those of all. */
function barFor(jobs: readonly Job[]) {
  if (!process.stderr.isTTY) return null;
  const barsize = Math.max(5, Math.min(40, (process.stderr.columns ?? 80) - BESIDE_BAR));
  const count = jobs.length === 1 ? '' : '{done}/{count} pictures, ';
  const format = `{state} [{bar}] ${count}{step}/{total} steps`;
  const bar = new progress.SingleBar({ format, barsize, linewrap: true }, progress.Presets.legacy);
  const steps = jobs.reduce((sum, job) => sum + job.steps, 0);
  bar.start(steps, 0, { state: 'waiting', step: 0, done: 0, count: jobs.length });
  return bar;
}

/**
 * Resolves when all have ended; each is told as it does. @throws CodedError LINK_LOST, WORKER_FAILED,
 * SUPERVISOR_SILENT
 */
export function watchJobs(
  { link, pid }: Client,
  jobs: readonly Job[],
  watcher: Listener,
  onEnd: (job: Job) => Promise<void>,
): Promise<void> {
  const bar = barFor(jobs);
  let waitsFor = '';
  /** In a pipe nobody sees a bar that stands still. */
  const say = (reason: string) => {
    if (bar === null && reason !== waitsFor) printError(`waiting: ${reason}`);
    waitsFor = reason;
  };
  const left = new Map(jobs.map((job) => [job.id, job]));
  /** Steps of each, parts of one too. */
  const reached = new Map<string, number>();
  const show = (state: string) => {
    const steps = [...reached.values()].reduce((sum, step) => sum + step, 0);
    bar?.update(steps, { state, step: Math.floor(steps), done: jobs.length - left.size });
  };
  return new Promise<void>((resolve, reject) => {
    let telling: Promise<void> = Promise.resolve();
    // A supervisor that stands still says nothing of it.
    const looking = setInterval(() => {
      answered(pid, link.request('status', {})).then(({ children }) => {
        const { state, reason } = mainWorker(children);
        if (WAITING.has(state)) say(reason);
      }, fail);
    }, LOOK_MS);
    const fail = (error: Error) => {
      clearInterval(looking);
      bar?.stop();
      reject(error);
    };
    const end = (job: Job) => {
      if (!left.delete(job.id)) return;
      reached.set(job.id, job.steps);
      show(left.size === 0 ? 'done   ' : 'drawing');
      if (left.size === 0) {
        clearInterval(looking);
        bar?.stop();
      }
      // One after the other, in the order in which they ended.
      telling = telling.then(() => {
        // What is printed begins a line of its own; the bar comes again below it.
        if (bar && left.size > 0) process.stderr.write('\r\x1b[K');
        return onEnd(job);
      });
      telling.then(() => left.size === 0 && resolve(), fail);
    };
    link.onClose = () => {
      const which = left.size === 1 ? `job ${[...left.keys()][0]} is` : `${left.size} jobs are`;
      fail(new CodedError('LINK_LOST', `the supervisor went away; ${which} kept and drawn when it is back`));
    };
    watcher.workerFailed = (reason) => fail(workerGivenUp(reason));
    watcher.event = (event) => {
      if (!('jobId' in event) || !left.has(event.jobId)) return;
      if ('job' in event && isTerminal(event.job.status)) return end(event.job);
      if (event.type === 'progress') reached.set(event.jobId, event.progress * event.steps);
      else if ('step' in event) reached.set(event.jobId, event.step);
      show(event.type === 'requeued' ? 'waiting' : 'drawing');
    };
    // They may have ended before we listened.
    const look = (id: string) =>
      void link.request('getJob', { id }).then(
        (job) => isTerminal(job.status) && end(job),
        (error: Error) => {
          if (!isStoreAway(error)) fail(error);
          // The job is kept, and goes on.
          else setTimeout(() => left.has(id) && look(id), LOOK_MS).unref();
        },
      );
    watcher.missed = () => {
      for (const id of left.keys()) look(id);
    };
    watcher.missed();
  });
}
