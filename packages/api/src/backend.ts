/** The API's view of the supervisor: its methods, and the events of jobs. */
import { connectIpc } from '@qwen-supervisor/ipc/connect';
import type { Link } from '@qwen-supervisor/ipc/link';
import { type CodedError, workerGivenUp } from '@qwen-supervisor/protocol/errors';
import { isTerminal, type Job, type JobEvent } from '@qwen-supervisor/protocol/job';
import type { ClientMethods, SupervisorMethods, Welcome } from '@qwen-supervisor/protocol/messages';
import type { Vitals } from '@qwen-supervisor/protocol/status';

export type SupervisorLink = Link<SupervisorMethods, ClientMethods>;

export interface Backend {
  link: SupervisorLink;
  /** As of now: the operator may change limits and model. */
  readonly welcome: Welcome;
  /** Calls `listener` for every event of a job until the returned function is called. */
  listen(jobId: string, listener: (event: JobEvent) => void): () => void;
  /** Resolves with the job when it has ended; rejects when the supervisor stops or gives the worker up first. */
  waitForEnd(jobId: string): Promise<Job>;
  /** Lets everything that waits fail with this. */
  stop(reason: CodedError): void;
}

/** This process serves while its event loop turns; nothing else is expected of it. */
function measureVitals(): Vitals {
  const { user, system } = process.cpuUsage();
  return { rssBytes: process.memoryUsage.rss(), readBytes: 0, cpuSeconds: (user + system) / 1e6, step: 0 };
}

export async function connectBackend(
  socket: string,
  token: string,
  beatMs: number,
  on: { shutdown(params: { forGood: boolean }): void; lost(): void },
): Promise<Backend> {
  const listeners = new Map<string, Set<(event: JobEvent) => void>>();
  const waiting = new Set<(error: CodedError) => void>();
  const fail = (error: CodedError) => {
    for (const reject of waiting) reject(error);
  };
  const link: SupervisorLink = await connectIpc<SupervisorMethods, ClientMethods>(socket, () => ({
    event: (event) => {
      if (!('jobId' in event)) return;
      for (const listener of listeners.get(event.jobId) ?? []) listener(event);
    },
    workerFailed: ({ reason }) => fail(workerGivenUp(reason)),
    welcome: (changed) => {
      welcome = changed;
    },
    shutdown: on.shutdown,
  }));
  link.onClose = on.lost;
  let welcome = await link.request('hello', { role: 'api', pid: process.pid, token });
  await link.request('subscribe', { since: null });
  setInterval(() => link.notify('beat', measureVitals()), beatMs);

  const listen: Backend['listen'] = (jobId, listener) => {
    const ofJob = listeners.get(jobId) ?? new Set();
    listeners.set(jobId, ofJob.add(listener));
    return () => {
      ofJob.delete(listener);
      if (ofJob.size === 0) listeners.delete(jobId);
    };
  };

  return {
    link,
    get welcome() {
      return welcome;
    },
    listen,
    waitForEnd(jobId) {
      return new Promise<Job>((resolve, reject) => {
        const stop = listen(jobId, (event) => {
          if ('job' in event && isTerminal(event.job.status)) settle(() => resolve(event.job));
        });
        const settle = (act: () => void) => {
          stop();
          waiting.delete(giveUp);
          act();
        };
        const giveUp = (error: CodedError) => settle(() => reject(error));
        waiting.add(giveUp);
        // The job may have ended, or the worker been given up, before we listened.
        Promise.all([link.request('getJob', { id: jobId }), link.request('status', {})]).then(([job, status]) => {
          const worker = status.children.find((child) => child.name === 'inference');
          if (isTerminal(job.status)) settle(() => resolve(job));
          else if (worker?.state === 'failed') giveUp(workerGivenUp(worker.reason));
        }, giveUp);
      });
    },
    stop: fail,
  };
}
