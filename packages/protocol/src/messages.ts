/**
 * What the processes say to each other. Each map is one direction of one link: name → parameters → result.
 * A method whose result is `void` is a notification: nobody waits for it.
 */
import type { ErrorObject } from './errors.js';
import type { NumberedEvent } from './events.js';
import type { Idempotency, Job, JobLimits, JobOrder, JobRequest, JobStatus, ModelDefaults } from './job.js';
import type { ChildName, LoadProgress, SystemStatus, Vitals } from './status.js';

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
  /** All or none. `replayed`: the key was known, and these are the jobs of its first use. */
  submitJobs(params: { orders: JobOrder[]; idempotency: Idempotency | null }): { jobs: Job[]; replayed: boolean };
  /** A new job with the request of one that failed or was cancelled. */
  retryJob(params: { id: string; idempotency: Idempotency | null }): Job;
  getJob(params: { id: string }): Job;
  listJobs(params: { status: JobStatus | null; limit: number }): { jobs: Job[] };
  cancelJob(params: { id: string }): Job;
  /** Where the file of a picture lies, relative to the data folder. */
  findImage(params: { id: string }): { file: string; sha256: string };
  status(params: Record<string, never>): SystemStatus;
  /** From now on events come over this link; first those after `since` that are still known, none for null. */
  subscribe(params: { since: number | null }): { ok: true };
  stop(params: Record<string, never>): { ok: true };
  /** Starts a child anew, a failed one too. A running job keeps its step. */
  restart(params: { name: ChildName }): { ok: true };
  /** Reads the configuration again. */
  reload(params: Record<string, never>): ReloadReport;
  /** The API serves requests now. */
  apiReady(params: Record<string, never>): void;
  beat(params: Vitals): void;
  /** The API cannot go on. `permanent`: a new process would meet the same fault. */
  fatal(params: { error: ErrorObject; permanent: boolean }): void;
};

/** Supervisor → API and CLI. */
export type ClientMethods = {
  event(params: NumberedEvent): void;
  /** The worker has been given up: what waits for a picture waits in vain. Its job is kept. */
  workerFailed(params: { reason: string }): void;
  /** The configuration has changed. */
  welcome(params: Welcome): void;
  /** `forGood`: the supervisor stops, too; else another API takes over. */
  shutdown(params: { forGood: boolean }): void;
};

/** Inference worker → supervisor. */
export type WorkerReports = {
  hello(params: Hello): Welcome;
  loading(params: LoadProgress): void;
  /** `msPerToken`: of a denoising step at the warm-up. */
  loaded(params: { seconds: number; msPerToken: number }): void;
  /** The worker cannot go on. `permanent`: a new process would meet the same fault. */
  fatal(params: { error: ErrorObject; permanent: boolean }): void;
  beat(params: Vitals): void;
  /** The attempt has begun, after `step`: not 0 where it goes on from a checkpoint. */
  begun(params: { jobId: string; attempt: number; step: number; startedOverReason: string | null }): void;
  /** A step is completed, and its checkpoint written. */
  step(params: { jobId: string; attempt: number; step: number; preview: Uint8Array | null }): void;
  finished(params: { jobId: string; attempt: number; outcome: JobOutcome }): void;
};

/** What became of a changed configuration: keys in force now, children restarted for them, keys that need a new start. */
export interface ReloadReport {
  applied: string[];
  restarted: ChildName[];
  ignored: string[];
}

/** How an attempt ended, as the worker tells it. */
export type JobOutcome =
  | { status: 'done'; imageId: string; file: string; sha256: string; bytes: number }
  | { status: 'failed'; error: ErrorObject }
  | { status: 'cancelled' };

/** Supervisor → inference worker. */
export type WorkerMethods = {
  /** `step`: what earlier attempts have completed. */
  run(params: { jobId: string; attempt: number; request: JobRequest; step: number }): void;
  cancel(params: { jobId: string; attempt: number }): void;
  shutdown(params: { forGood: boolean }): void;
};

/** Environment variables by which a child learns who it is. Not configuration: set by the supervisor alone. */
export const CHILD_ENV = {
  socket: 'QWEN_SUPERVISOR_CHILD_SOCKET',
  token: 'QWEN_SUPERVISOR_CHILD_TOKEN',
  /** Marks every descendant of a supervisor of this data folder. */
  dataDir: 'QWEN_SUPERVISOR_CHILD_DATA_DIR',
  settings: 'QWEN_SUPERVISOR_CHILD_SETTINGS',
} as const;

/** What the inference worker is started with. */
export interface WorkerSettings {
  modelFolder: string;
  dataDir: string;
  /** Steps from one checkpoint of a job to the next. */
  checkpointSteps: number;
  /** From one sign of life to the next. */
  beatMs: number;
}

/** What the API is started with. */
export interface ApiSettings {
  /** File descriptor of the bound socket. */
  listenFd: number;
  host: string;
  port: number;
  beatMs: number;
}
