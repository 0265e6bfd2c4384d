/** A supervisor that lives in this process: what the API asks of it, answered from memory. No picture is ever drawn. */
import { Abandoned } from '@qwen-supervisor/api/abandoned';
import type { Backend } from '@qwen-supervisor/api/backend';
import type { ApiKey } from '@qwen-supervisor/protocol/api-keys';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { EventRing } from '@qwen-supervisor/protocol/event-ring';
import type { NumberedEvent, SystemEvent } from '@qwen-supervisor/protocol/events';
import { isTerminal, type Job, type JobOrder } from '@qwen-supervisor/protocol/job';
import { stepsOf } from '@qwen-supervisor/protocol/job-request';
import type { AccessSettings, SupervisorMethods, Welcome } from '@qwen-supervisor/protocol/messages';
import { sampleJob } from '../sample-job.js';
import { sampleStatus } from '../sample-status.js';

export const ACCESS: AccessSettings = {
  allowHosts: [],
  allowOrigins: [],
  trustedProxies: [],
  pathPrefix: '',
  requestsPerMinute: null,
  maxConnections: 100,
  maxUploadBytes: 1_000_000,
  strictModelNames: false,
};

const WELCOME: Welcome = {
  version: '0.1.0',
  run: 'abc',
  model: {
    id: 'pocket',
    folder: 'pocket',
    defaults: { width: 128, height: 128, numInferenceSteps: 20, trueCfgScale: 4, negativePrompt: ' ' },
    presets: {
      fast: { numInferenceSteps: 10, trueCfgScale: 4 },
      balanced: { numInferenceSteps: 20, trueCfgScale: 4 },
      high: { numInferenceSteps: 40, trueCfgScale: 4 },
    },
    distilled: null,
    sizes: { '1:1': [128, 128] },
    promptSuffix: null,
    examples: [],
    note: null,
    plan: {
      fastPixels: 4096 * 4096,
      residentPixels: 4096 * 4096,
      neededBytes: 1e9,
      cardBytes: null,
      availableBytes: 4e9,
      largestPixels: 4096 * 4096,
      tileAbovePixels: 4096 * 4096,
    },
  },
  limits: { maxSteps: 1000, maxPixels: 4096 * 4096, memoryPixels: 4096 * 4096 },
  dataDir: '/nowhere',
  url: 'http://127.0.0.1:8000',
};

type Answers = { [K in keyof SupervisorMethods]?: (params: Parameters<SupervisorMethods[K]>[0]) => unknown };

export interface FakeBackend extends Backend {
  /** In the order of their arrival. */
  readonly jobs: Job[];
  /** What was asked, by method. */
  readonly asked: { method: string; params: unknown }[];
  /** Something happens. */
  tell(event: SystemEvent): void;
  /** A job ends. */
  end(id: string, end: Partial<Job>): void;
}

/** `answers` take the place of those of a healthy supervisor. */
export function fakeBackend(
  options: { keys?: ApiKey[]; access?: Partial<AccessSettings>; answers?: Answers; dataDir?: string } = {},
): FakeBackend {
  const jobs: Job[] = [];
  const asked: FakeBackend['asked'] = [];
  const listeners = new Set<(event: NumberedEvent) => void>();
  const ring = new EventRing();
  let seq = 0;
  const find = (id: string) => {
    const job = jobs.find((one) => one.id === id);
    if (!job) throw new CodedError('JOB_NOT_FOUND');
    return job;
  };
  const answers: Answers = {
    status: () => ({ ...sampleStatus(), queue: { ...sampleStatus().queue, queued: waiting().length } }),
    submitJobs: ({ orders }) => {
      const added = orders.map((order) => toJob(order, jobs.length + orders.indexOf(order)));
      jobs.push(...added);
      return { jobs: added, replayed: false };
    },
    getJob: ({ id }) => find(id),
    listJobs: ({ limit }) => ({ jobs: jobs.toReversed().slice(0, limit), next: null }),
    waitingJobs: ({ limit }) => ({ jobs: waiting().slice(0, limit) }),
    cancelJob: ({ id }) => Object.assign(find(id), { status: 'cancelled' }),
    findImage: () => {
      throw new CodedError('IMAGE_NOT_FOUND');
    },
    listPictures: () => ({ pictures: [], next: null }),
    loadModel: () => ({ ok: true }),
    unloadModel: () => ({ ok: true }),
    ...options.answers,
  };
  const waiting = () => jobs.filter(({ status }) => status === 'queued');
  const listen = (listener: (event: NumberedEvent) => void) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  };
  const tell = (event: SystemEvent) => {
    const numbered = { ...event, run: WELCOME.run, seq: ++seq, at: '2026-11-26T00:00:00Z' } as NumberedEvent;
    ring.push(numbered);
    for (const listener of [...listeners]) listener(numbered);
  };
  const request = async (method: keyof SupervisorMethods, params: never) => {
    asked.push({ method, params });
    const answer = answers[method];
    if (!answer) throw new Error(`the fake supervisor does not answer ${method}`);
    return (answer as (params: never) => unknown)(params);
  };
  return {
    link: { request } as unknown as Backend['link'],
    keys: options.keys ?? [],
    settings: { ...ACCESS, ...options.access },
    welcome: { ...WELCOME, dataDir: options.dataDir ?? WELCOME.dataDir },
    abandoned: new Abandoned(),
    ring,
    stopping: false,
    preview: () => null,
    listen,
    listenToJob: (jobId, listener) =>
      listen((event) => 'jobId' in event && event.jobId === jobId && listener(event as never)),
    waitForEnd: (jobId) =>
      new Promise((resolve) => {
        const stop = listen((event) => {
          if (!('job' in event) || event.jobId !== jobId || !isTerminal(event.job.status)) return;
          stop();
          resolve(event.job);
        });
      }),
    stop() {},
    jobs,
    asked,
    tell,
    end(id, end) {
      const job = Object.assign(find(id), end);
      tell({ type: job.status as 'done' | 'failed' | 'cancelled', jobId: id, job });
    },
  };
}

function toJob({ request, priority, source, retryOf }: JobOrder, index: number): Job {
  const id = `job_${index.toString(16).padStart(24, '0')}`;
  const steps = stepsOf(request);
  return sampleJob(id, { ...request, steps, priority, position: index + 1, source, retryOf });
}
