/**
 * What the processes say to each other. Each map is one direction of one link: name → parameters → result.
 * A method whose result is `void` is a notification: nobody waits for it.
 */
import type { ErrorObject } from './errors.js';
import type { Job, JobEvent, JobLimits, JobRequest, JobStatus, ModelDefaults } from './job.js';
import type { LoadProgress, SystemStatus } from './status.js';

/** A method map: parameters in, result out. */
export type Methods = Record<string, (params: never) => unknown>;
export type Params<M extends Methods, K extends keyof M> = Parameters<M[K]>[0];
export type Result<M extends Methods, K extends keyof M> = Awaited<ReturnType<M[K]>>;

/** The first message on every link. Children prove with `token` that the supervisor spawned them. */
export interface Hello {
  role: 'inference' | 'api' | 'cli';
  pid: number;
  token: string | null;
}

/** What a client needs before it can check a request. */
export interface Welcome {
  version: string;
  defaults: ModelDefaults;
  limits: JobLimits;
  dataDir: string;
  modelId: string;
  /** Where the API is reached. */
  url: string;
}

/** API and CLI → supervisor. */
export type SupervisorMethods = {
  hello(params: Hello): Welcome;
  submitJob(params: { request: JobRequest }): Job;
  getJob(params: { id: string }): Job;
  listJobs(params: { status: JobStatus | null; limit: number }): { jobs: Job[] };
  cancelJob(params: { id: string }): Job;
  /** Where the file of a picture lies, relative to the data folder. */
  findImage(params: { id: string }): { file: string; sha256: string };
  status(params: Record<string, never>): SystemStatus;
  /** From now on job events come over this link. */
  subscribe(params: Record<string, never>): { ok: true };
  stop(params: Record<string, never>): { ok: true };
  /** The API serves requests now. */
  apiReady(params: Record<string, never>): void;
  /** The API cannot go on. `permanent`: a new process would meet the same fault. */
  fatal(params: { error: ErrorObject; permanent: boolean }): void;
};

/** Supervisor → API and CLI. */
export type ClientMethods = {
  event(params: JobEvent): void;
  /** The worker has been given up: what waits for a picture waits in vain. Its job is kept. */
  workerFailed(params: { reason: string }): void;
  shutdown(params: Record<string, never>): void;
};

/** Inference worker → supervisor. */
export type WorkerReports = {
  hello(params: Hello): Welcome;
  loading(params: LoadProgress): void;
  loaded(params: { seconds: number }): void;
  /** The worker cannot go on. `permanent`: a new process would meet the same fault. */
  fatal(params: { error: ErrorObject; permanent: boolean }): void;
  beat(params: { rssBytes: number; step: number }): void;
  step(params: { jobId: string; attempt: number; step: number; preview: Uint8Array | null }): void;
  finished(params: { jobId: string; attempt: number; outcome: JobOutcome }): void;
};

/** How an attempt ended, as the worker tells it. */
export type JobOutcome =
  | { status: 'done'; imageId: string; file: string; sha256: string; bytes: number }
  | { status: 'failed'; error: ErrorObject }
  | { status: 'cancelled' };

/** Supervisor → inference worker. */
export type WorkerMethods = {
  run(params: { jobId: string; attempt: number; request: JobRequest }): void;
  cancel(params: { jobId: string; attempt: number }): void;
  shutdown(params: Record<string, never>): void;
};

/** Environment variables by which a child learns who it is. Not configuration: set by the supervisor alone. */
export const CHILD_ENV = {
  socket: 'QWEN_SUPERVISOR_CHILD_SOCKET',
  token: 'QWEN_SUPERVISOR_CHILD_TOKEN',
  settings: 'QWEN_SUPERVISOR_CHILD_SETTINGS',
} as const;

/** What the inference worker is started with. */
export interface WorkerSettings {
  modelFolder: string;
  dataDir: string;
}

/** What the API is started with. */
export interface ApiSettings {
  /** File descriptor of the bound socket. */
  listenFd: number;
  host: string;
  port: number;
}
