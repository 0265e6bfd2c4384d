/**
 * What the processes say to each other. Each map is one direction of one link: name → parameters → result.
 * A method whose result is `void` is a notification: nobody waits for it.
 */
import type { ApiKey } from './api-keys.js';
import type { DeviceAbility } from './device.js';
import type { ErrorObject } from './errors.js';
import type { NumberedEvent } from './events.js';
import type {
  AttemptStart,
  CancelScope,
  Idempotency,
  Job,
  JobFilter,
  JobOrder,
  PictureFilter,
  PictureMarks,
} from './job.js';
import type { DrawnModel, JobLimits, JobRequest, ModelDefaults } from './job-request.js';
import type { ModelPlan } from './model-plan.js';
import type { ChildName, ChildRole, Crash, LoadProgress, SystemStatus, Vitals } from './status.js';

/** A method map: parameters in, result out. */
export type Methods = Record<string, (params: never) => unknown>;
export type Params<M extends Methods, K extends keyof M> = Parameters<M[K]>[0];
export type Result<M extends Methods, K extends keyof M> = Awaited<ReturnType<M[K]>>;

/** The first message on every link. Children prove with `token` that the supervisor spawned them. */
export interface Hello {
  role: 'inference' | 'api' | 'cli';
  pid: number;
  token: string | null;
  /** Of the program that the peer runs. */
  version: string;
}

/** What is known about the model beyond its weights. */
export interface ModelInfo extends DrawnModel {
  id: string;
  /** Name of the checkpoint folder. */
  folder: string;
  /** Steps and guidance by what matters: time, or what the picture looks like. */
  presets: Record<'fast' | 'balanced' | 'high', Pick<ModelDefaults, 'numInferenceSteps' | 'trueCfgScale'>>;
  /** Width and height by ratio, as the model was trained. */
  sizes: Record<string, [number, number]>;
  /** What its authors put behind a prompt to make it look better, by language; null if they have nothing. */
  promptSuffix: { en: string; zh: string } | null;
  /** Prompts to begin with. */
  examples: string[];
  /** What somebody should know who describes pictures to it; null: nothing. */
  note: string | null;
  plan: ModelPlan;
}

/** What a client needs before it can check a request. */
export interface Welcome {
  version: string;
  /** Names this run of the supervisor: its events are numbered from 1. */
  run: string;
  model: ModelInfo;
  limits: JobLimits;
  dataDir: string;
  /** Where the API is reached. */
  url: string;
}

/** One picture in the compact index: id, width, height, when it was made (milliseconds since 1970), 1 if starred. */
export type PictureEntry = [id: string, width: number, height: number, atMs: number, starred: 0 | 1];

/** By what pictures can be filtered, and how many there are of each; those in the trash are not counted. */
export interface PictureFacets {
  models: { model: string; count: number }[];
  sizes: { width: number; height: number; count: number }[];
}

export interface PicturePage {
  pictures: PictureEntry[];
  /** The cursor of the page after this one; null at the end. */
  next: number | null;
}

/** Everything a page shows first. Events after `lastSeq` change it. */
export interface Snapshot {
  lastSeq: number;
  status: SystemStatus;
  /** Those in the hands of workers, the one first that was begun first. */
  running: Job[];
  /** Of running jobs, by their id: PNG. */
  previews: Record<string, Uint8Array>;
  /** In the order in which they will be drawn; the first fifty. */
  queue: Job[];
  /** The last that have ended, newest first. */
  ended: Job[];
  /** Newest first. */
  crashes: Crash[];
}

/** API and CLI → supervisor. */
export type SupervisorMethods = {
  hello(params: Hello): Welcome;
  /** All or none; several are a group. `replayed`: the key was known, and these are the jobs of its first use. */
  submitJobs(params: { orders: JobOrder[]; idempotency: Idempotency | null }): { jobs: Job[]; replayed: boolean };
  /** A new job with the request of one that failed or was cancelled. */
  retryJob(params: { id: string; idempotency: Idempotency | null; owner: string | null }): Job;
  getJob(params: { id: string }): Job;
  /** Newest first, after `cursor`; `next` is the cursor of the page after this one, null at the end. */
  listJobs(params: { filter: JobFilter; cursor: number | null; limit: number }): { jobs: Job[]; next: number | null };
  /** The first jobs in line, in their order. */
  waitingJobs(params: { limit: number }): { jobs: Job[] };
  /** `ifQueued`: a running one is left alone. */
  cancelJob(params: { id: string; ifQueued: boolean }): Job;
  /** Tells how many. */
  cancelJobs(params: CancelScope): { cancelled: number };
  /** Ends a running job with the picture that it has reached; a queued one is cancelled. */
  interruptJob(params: { id: string }): Job;
  /** Changes the place of a queued job. */
  moveJob(params: { id: string; priority: number | null; before: string | null }): Job;
  /** Forgets a job that has ended, with its picture. */
  removeJob(params: { id: string }): { ok: true };
  /** Where the file of a picture lies, relative to the data folder. */
  findImage(params: { id: string }): { file: string; sha256: string };
  /** Newest first, after `cursor`. */
  listPictures(params: { filter: PictureFilter; cursor: number | null; limit: number }): PicturePage;
  pictureFacets(params: Record<string, never>): PictureFacets;
  /** Tells which have changed: others are not there, or were so already. */
  markPictures(params: { ids: string[]; marks: PictureMarks }): { changed: string[] };
  /** Forgets all that are in the trash, with their jobs. */
  emptyTrash(params: Record<string, never>): { removed: number };
  status(params: Record<string, never>): SystemStatus;
  snapshot(params: Record<string, never>): Snapshot;
  /** In the text format of Prometheus. */
  metrics(params: Record<string, never>): { text: string };
  /** Begins to load the model; one that is loaded stays so. */
  loadModel(params: Record<string, never>): { ok: true };
  /** Gives the model's memory back; the next job loads it again. */
  unloadModel(params: Record<string, never>): { ok: true };
  /** From now on events come over this link; first those after `since` that are still known, none for null. */
  subscribe(params: { since: number | null }): { ok: true };
  stop(params: Record<string, never>): { ok: true };
  /** Starts a child anew, a failed one too. A running job keeps its step. */
  restart(params: { name: ChildName }): { ok: true };
  /** From now on this one of the machines that share the queue takes no more jobs, or takes them again. */
  drainMachine(params: { name: string; isDrained: boolean }): { ok: true };
  /** Reads the configuration again. */
  reload(params: Record<string, never>): ReloadReport;
  /** The API serves requests now. */
  apiReady(params: Record<string, never>): void;
  /** For the API alone; without any, none is asked for. */
  apiKeys(params: Record<string, never>): { keys: ApiKey[] };
  beat(params: Vitals): void;
  /** The API cannot go on. `permanent`: a new process would meet the same fault. */
  fatal(params: { error: ErrorObject; permanent: boolean }): void;
};

/** Supervisor → API and CLI. */
export type ClientMethods = {
  event(params: NumberedEvent): void;
  /** The peer was too slow for some events: what it asks for anew is right. */
  missed(params: Record<string, never>): void;
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
  /** `msPerToken`: of a pass of the transformer at the warm-up. */
  loaded(params: { seconds: number; msPerToken: number }): void;
  /** The worker cannot go on. `permanent`: a new process would meet the same fault. */
  fatal(params: { error: ErrorObject; permanent: boolean }): void;
  beat(params: Vitals): void;
  /** The attempt has begun, after `step`: not 0 where it goes on from a checkpoint. */
  begun(params: { jobId: string; attempt: number } & AttemptStart): void;
  /** A step is completed, and its checkpoint written. */
  step(params: { jobId: string; attempt: number; step: number; preview: Uint8Array | null }): void;
  decoding(params: { jobId: string; attempt: number }): void;
  finished(params: { jobId: string; attempt: number; outcome: JobOutcome }): void;
};

/**
 * What became of a changed configuration: keys in force now, children restarted for them, keys that need a new start.
 */
export interface ReloadReport {
  applied: string[];
  restarted: ChildRole[];
  ignored: string[];
}

/** How an attempt ended, as the worker tells it. */
export type JobOutcome =
  /** `step`: how many are in the picture; fewer than asked for where it was interrupted. */
  | { status: 'done'; step: number; imageId: string; file: string; sha256: string; bytes: number }
  | { status: 'failed'; error: ErrorObject }
  | { status: 'cancelled' };

/** Supervisor → inference worker. */
export type WorkerMethods = {
  /** `step`: what earlier attempts have completed. */
  run(params: { jobId: string; attempt: number; request: JobRequest; step: number }): void;
  /** `keep`: the picture that is reached is wanted. */
  cancel(params: { jobId: string; attempt: number; keep: boolean }): void;
  shutdown(params: { forGood: boolean }): void;
};

/** Environment variables by which a child learns who it is. Not configuration: set by the supervisor alone. */
export const CHILD_ENV = {
  socket: 'QWEN_SUPERVISOR_CHILD_SOCKET',
  token: 'QWEN_SUPERVISOR_CHILD_TOKEN',
  /** Marks every descendant of a supervisor of this data folder. */
  dataDir: 'QWEN_SUPERVISOR_CHILD_DATA_DIR',
  settings: 'QWEN_SUPERVISOR_CHILD_SETTINGS',
  /** The types of 16 bits that its card may compute in, the best one first. */
  compute: 'QWEN_SUPERVISOR_CHILD_COMPUTE',
} as const;

/** What the inference worker is started with. */
export interface WorkerSettings {
  modelFolder: string;
  dataDir: string;
  /** Steps from one checkpoint of a job to the next. */
  checkpointSteps: number;
  /** Id of the model. */
  model: string;
  /** Whether pictures tell how they were made. */
  embedsMetadata: boolean;
  /** From one sign of life to the next. */
  beatMs: number;
  /** Threads that compute; 0 for as many as there are processors, divided by `sharers`. */
  threads: number;
  /** Workers that compute on the processor, this one among them. */
  sharers: number;
  /** As `cpu`, `cuda:0`, `webgpu:0`. */
  device: string;
  /** What it is, by which equal ones are known: `cuda NVIDIA GeForce RTX 4090`. */
  card: string;
  /** What it was found to compute the transformer in. */
  compute: DeviceAbility['compute'];
  /** Whether a picture begun on another kind of card is begun anew. */
  startsOverElsewhere: boolean;
  plan: ModelPlan;
  distilled: ModelInfo['distilled'];
}

/** What the API is started with. */
export interface ApiSettings {
  /** File descriptors of the bound sockets. */
  listenFds: number[];
  host: string;
  port: number;
  beatMs: number;
  access: AccessSettings;
}

/** Who may call the API, and how much. */
export interface AccessSettings {
  /** Hosts and origins beyond this machine's own. */
  allowHosts: string[];
  allowOrigins: string[];
  /** Addresses and networks whose X-Forwarded-… is believed. */
  trustedProxies: string[];
  /** Path below which a proxy has put us, without a slash at its end; empty for the root. */
  pathPrefix: string;
  /** Of one key; null: no limit. */
  requestsPerMinute: number | null;
  maxConnections: number;
  /** Bytes of a body that holds a picture. */
  maxUploadBytes: number;
  /** Whether a client may name no other model than the one that is loaded. */
  strictModelNames: boolean;
}
