/** The API's view of the supervisor: its methods, and what happens. */
import { connectIpc } from '@qwen-supervisor/ipc/connect';
import type { Link } from '@qwen-supervisor/ipc/link';
import { VERSION } from '@qwen-supervisor/ipc/version';
import type { ApiKey } from '@qwen-supervisor/protocol/api-keys';
import { type CodedError, isStoreAway, workerGivenUp } from '@qwen-supervisor/protocol/errors';
import { EventRing } from '@qwen-supervisor/protocol/event-ring';
import type { NumberedEvent } from '@qwen-supervisor/protocol/events';
import { isTerminal, type Job, type JobEvent } from '@qwen-supervisor/protocol/job';
import type {
  AccessSettings,
  ApiSettings,
  ClientMethods,
  SupervisorMethods,
  Welcome,
} from '@qwen-supervisor/protocol/messages';
import { drawsElsewhere, mainWorker, type Vitals } from '@qwen-supervisor/protocol/status';
import { Abandoned } from './abandoned.js';

/** From one look at a job to the next while the database is away. */
const LOOK_AGAIN_MS = 1000;

export type SupervisorLink = Link<SupervisorMethods, ClientMethods>;

export interface Backend {
  link: SupervisorLink;
  keys: readonly ApiKey[];
  settings: AccessSettings;
  /** As of now: the operator may change limits and model. */
  readonly welcome: Welcome;
  /** What has happened of late. */
  readonly ring: EventRing;
  /** The last preview of a running job, PNG. */
  preview(jobId: string): Uint8Array | null;
  /** Calls `listener` for every event until the returned function is called, and `missed` where some were lost. */
  listen(listener: (event: NumberedEvent) => void, missed: () => void): () => void;
  /** So for the events of one job. */
  listenToJob(jobId: string, listener: (event: JobEvent & NumberedEvent) => void): () => void;
  /** Resolves with the job when it has ended; rejects when the supervisor stops or gives the worker up first. */
  waitForEnd(jobId: string): Promise<Job>;
  readonly abandoned: Abandoned;
  /** This process ends: connections that close now are not closed by their clients. */
  readonly stopping: boolean;
  /** Lets everything that waits fail with this. */
  stop(reason: CodedError): void;
}

/** This process serves while its event loop turns; nothing else is expected of it. */
function measureVitals(): Vitals {
  const { user, system } = process.cpuUsage();
  return {
    rssBytes: process.memoryUsage.rss(),
    readBytes: 0,
    cpuSeconds: (user + system) / 1e6,
    step: 0,
    stepShare: 0,
    work: 0,
  };
}

export async function connectBackend(
  socket: string,
  token: string,
  { beatMs, access }: ApiSettings,
  on: { shutdown(params: { forGood: boolean }): void; lost(): void },
): Promise<Backend> {
  const ring = new EventRing();
  const listeners = new Set<(event: NumberedEvent) => void>();
  const ofJobs = new Map<string, Set<(event: JobEvent & NumberedEvent) => void>>();
  const onMissed = new Set<() => void>();
  const waiting = new Set<(error: CodedError) => void>();
  /** The last of each job that runs. */
  const previews = new Map<string, Uint8Array>();
  let stopping = false;
  const fail = (error: CodedError) => {
    for (const reject of waiting) reject(error);
  };
  const hear = (event: NumberedEvent) => {
    ring.push(event);
    if (event.type === 'step' && event.preview) previews.set(event.jobId, event.preview);
    if ('job' in event && isTerminal(event.job.status)) previews.delete(event.jobId);
    for (const listener of listeners) listener(event);
    if ('jobId' in event) for (const listener of ofJobs.get(event.jobId) ?? []) listener(event);
  };
  const link: SupervisorLink = await connectIpc<SupervisorMethods, ClientMethods>(socket, () => ({
    event: hear,
    missed: () => {
      ring.forget();
      previews.clear();
      for (const act of [...onMissed]) act();
    },
    workerFailed: ({ reason }) => fail(workerGivenUp(reason)),
    welcome: (changed) => {
      welcome = changed;
    },
    shutdown: on.shutdown,
  }));
  link.onClose = on.lost;
  let welcome = await link.request('hello', { role: 'api', pid: process.pid, token, version: VERSION });
  const { keys } = await link.request('apiKeys', {});
  // From the first that is kept: a client that comes back after this process was restarted has missed nothing.
  await link.request('subscribe', { since: 0 });
  setInterval(() => link.notify('beat', measureVitals()), beatMs);

  const listenToJob: Backend['listenToJob'] = (jobId, listener) => {
    const ofJob = ofJobs.get(jobId) ?? new Set();
    ofJobs.set(jobId, ofJob.add(listener));
    return () => {
      ofJob.delete(listener);
      if (ofJob.size === 0) ofJobs.delete(jobId);
    };
  };

  return {
    link,
    keys,
    settings: access,
    abandoned: new Abandoned(),
    ring,
    get welcome() {
      return welcome;
    },
    get stopping() {
      return stopping;
    },
    preview: (jobId) => previews.get(jobId) ?? null,
    listen(listener, missed) {
      listeners.add(listener);
      onMissed.add(missed);
      return () => {
        listeners.delete(listener);
        onMissed.delete(missed);
      };
    },
    listenToJob,
    waitForEnd(jobId) {
      return new Promise<Job>((resolve, reject) => {
        const stop = listenToJob(jobId, (event) => {
          if ('job' in event && isTerminal(event.job.status)) settle(() => resolve(event.job));
        });
        const settle = (act: () => void) => {
          stop();
          waiting.delete(giveUp);
          onMissed.delete(look);
          act();
        };
        const giveUp = (error: CodedError) => settle(() => reject(error));
        // The job may have ended, or the worker been given up, before we listened.
        const look = () =>
          void Promise.all([link.request('getJob', { id: jobId }), link.request('status', {})]).then(
            ([job, status]) => {
              const worker = mainWorker(status.children);
              if (isTerminal(job.status)) settle(() => resolve(job));
              else if (worker.state === 'failed' && !status.machines.some(drawsElsewhere))
                giveUp(workerGivenUp(worker.reason));
            },
            (error: CodedError) => {
              if (!isStoreAway(error)) giveUp(error);
              // The job is kept, and goes on.
              else setTimeout(() => waiting.has(giveUp) && look(), LOOK_AGAIN_MS).unref();
            },
          );
        waiting.add(giveUp);
        onMissed.add(look);
        look();
      });
    },
    stop(reason) {
      stopping = true;
      fail(reason);
    },
  };
}
