/** The others that draw from the same queue: what they tell, what is told to them, and what is known of them. */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { PictureChange } from '@qwen-supervisor/protocol/events';
import type { Job, JobEvent, JobProgress } from '@qwen-supervisor/protocol/job';
import { drawsElsewhere, isUp, type MachineReport, type MachineStatus } from '@qwen-supervisor/protocol/status';
import { type State, whyGivenUp } from './core/state.js';
import type { Core, JobDesk } from './jobs/job-desk.js';
import type { JobStore } from './jobs/job-store.js';
import type { ClaimHooks, JobNews } from './jobs/postgres-claims.js';
import type { SharedFiles } from './jobs/shared-files.js';
import type { EventLog } from './records/event-log.js';
import type { Log } from './records/log.js';

/** From one word of how far a job is to the next: each goes to every machine. */
const TELL_MS = 1000;
/** After a time without the database all others seem silent, until each has said again that it lives. */
const ALONE_MS = 10_000;

interface Here {
  core: Core & { report(): MachineReport; state(): State };
  jobs: JobDesk;
  events: EventLog;
  log: Log;
  store: JobStore;
  shared: SharedFiles | null;
}

/** Heard by a store that is opened before there is anybody who could do something about it. */
export class OtherMachines implements ClaimHooks {
  #here: Here | null = null;
  /** What is heard is done one after the other, as it happened. */
  #hearing: Promise<void> = Promise.resolve();
  #machines: MachineStatus[] = [];
  /** Whether there were others that could draw, and since when there are none. */
  #hadOthers = false;
  #aloneSinceMs: number | null = null;
  /** Jobs whose preview is on its way from where others put it. */
  readonly #fetching = new Set<string>();
  /** By job: one that came when the next step had been told. */
  readonly #arrived = new Map<string, Uint8Array>();
  /** By job: how far those are that others draw. */
  readonly #progress = new Map<string, JobProgress>();
  /** By job: when the others were last told how far it is here. */
  readonly #toldAtMs = new Map<string, number>();
  /** By job: the newest preview that the others do not have; not every step has one. */
  readonly #untold = new Map<string, Uint8Array>();

  attend(here: Here): void {
    this.#here = here;
  }

  /** All that share the queue, this one among them; none where the queue is this machine's own. */
  get machines(): MachineStatus[] {
    return this.#machines;
  }

  /** Workers of others that draw, or could: a job need not wait for ours. */
  get workers(): number {
    const able = this.#machines.filter(({ isHere, isDrained, state }) => !isHere && !isDrained && state === 'up');
    return able.flatMap(({ workers }) => workers.filter(({ state }) => isUp(state))).length;
  }

  /** How far a job is that another machine draws; null where that is not known. */
  progressOf(jobId: string): JobProgress | null {
    return this.#progress.get(jobId) ?? null;
  }

  report(): MachineReport | null {
    return this.#here?.core.report() ?? null;
  }

  onMachines(machines: MachineStatus[]): void {
    const told = (list: MachineStatus[]) => JSON.stringify(list.map(({ seenAt, ...rest }) => rest));
    const isNews = told(machines) !== told(this.#machines);
    for (const { name, state, isHere } of machines) {
      const before = this.#machines.find((one) => one.name === name);
      if (!isHere && before && before.state !== state)
        this.#here?.log.logger.info({ machine: name }, `machine ${name} is ${state}, and was ${before.state}`);
    }
    this.#machines = machines;
    this.#noteAlone(machines.some(drawsElsewhere));
    if (isNews) this.#here?.events.publish({ type: 'machines', machines });
  }

  /** Who waits for a picture was told nothing when our own workers were given up: there were these. */
  #noteAlone(areOthers: boolean): void {
    const nowMs = performance.now();
    if (areOthers) this.#aloneSinceMs = null;
    else if (this.#hadOthers) this.#aloneSinceMs ??= nowMs;
    this.#hadOthers ||= areOthers;
    if (this.#aloneSinceMs === null || nowMs - this.#aloneSinceMs < ALONE_MS || !this.#here) return;
    this.#hadOthers = false;
    this.#aloneSinceMs = null;
    const reason = whyGivenUp(this.#here.core.state());
    if (reason !== null) this.#here.events.announceFailure(reason);
  }

  /** @throws CodedError MACHINE_NOT_FOUND, STORE_UNREACHABLE, STORE_SCHEMA_OLD */
  async drain(name: string, isDrained: boolean): Promise<void> {
    const { store } = this.#here as Here;
    const drained = store.machines?.drain(name, isDrained).catch((cause: Error) => {
      const code = store.whenAway(cause);
      if (code === null) throw cause;
      throw new CodedError(code, `the job database: ${cause.message}`, { cause });
    });
    if (!(await drained))
      throw new CodedError('MACHINE_NOT_FOUND', `there is no machine '${name}' that shares this queue`);
  }

  /** Tells the others how far a job is that is drawn here. */
  tell(progress: JobProgress): void {
    const { store, shared } = this.#here ?? {};
    if (!store?.machines) return;
    const { jobId } = progress;
    if (shared && progress.type === 'step' && progress.preview) this.#untold.set(jobId, progress.preview);
    const nowMs = performance.now();
    const isSoon = nowMs - (this.#toldAtMs.get(jobId) ?? Number.NEGATIVE_INFINITY) < TELL_MS;
    if (progress.type !== 'decoding' && isSoon) return;
    this.#toldAtMs.set(jobId, nowMs);
    const preview = progress.type === 'step' ? this.#untold.get(jobId) : undefined;
    if (preview) this.#untold.delete(jobId);
    const { machines } = store;
    const tell = async () => {
      if (preview) await shared?.putPreview(jobId, preview);
      // It may have ended meanwhile, or got further.
      const toldAtMs = this.#toldAtMs.get(jobId);
      if (toldAtMs === undefined && preview) await shared?.removePreview(jobId);
      if (toldAtMs !== nowMs) return;
      await machines.tell(progress, preview !== undefined);
    };
    // That the database or the folder is away is said by those who cannot do without.
    tell().catch(() => 'the next step tells more');
  }

  /** It is drawn here no more. */
  forget(jobId: string): void {
    this.#toldAtMs.delete(jobId);
    this.#untold.delete(jobId);
    this.#progress.delete(jobId);
    this.#arrived.delete(jobId);
  }

  onWork(): void {
    if (!this.#here) return;
    const { core, jobs } = this.#here;
    jobs.othersChanged();
    // A model that was unloaded comes back for a job, and not for a look.
    const tell = ({ queued }: { queued: number }) => {
      if (queued > 0) core.send({ type: 'job-queued', atMs: core.nowMs() });
    };
    jobs.counts().then(tell, () => 'it is looked again soon');
  }

  onJobs(ids: string[], news: JobNews): void {
    this.#inTurn(async ({ jobs, events }) => {
      jobs.othersChanged();
      const filter = { status: null, source: null, group: null, ids };
      for (let cursor: number | null = null, more = true; more; more = cursor !== null) {
        const page: { jobs: Job[]; next: number | null } = await jobs.list(filter, cursor, ids.length);
        await events.relay(page.jobs.flatMap((job) => eventOf(job, news) ?? []));
        cursor = page.next;
      }
      if (news === 'ended' || news === 'requeued') for (const id of ids) this.forget(id);
      if (news === 'ended') jobs.dropCheckpoints(ids);
    });
  }

  onProgress(progress: JobProgress, hasPreview: boolean): void {
    const { jobId } = progress;
    const relay = (told: JobProgress) => this.#inTurn(({ events }) => events.relay([told]));
    this.#inTurn(async () => void this.#progress.set(jobId, progress));
    const shared = this.#here?.shared;
    if (progress.type !== 'step') return relay(progress);
    const arrived = this.#arrived.get(jobId) ?? null;
    this.#arrived.delete(jobId);
    if (!hasPreview || !shared || this.#fetching.has(jobId)) return relay({ ...progress, preview: arrived });
    this.#fetching.add(jobId);
    const fetched = (preview: Uint8Array | null) => {
      this.#fetching.delete(jobId);
      const newest = this.#progress.get(jobId);
      if (!newest || newest.type === 'decoding') return;
      if (newest.step <= progress.step) relay({ ...progress, preview });
      // Previews come more slowly than steps: this one goes with the next.
      else if (preview) this.#arrived.set(jobId, preview);
    };
    // One that cannot be had is none.
    shared.getPreview(jobId).then(fetched, () => fetched(null));
  }

  onPictures(ids: string[], change: PictureChange, files: string[]): void {
    this.#inTurn(({ jobs, events }) => {
      jobs.gallery.dropCopies(files);
      return events.relay([{ type: 'pictures', ids, change }]);
    });
  }

  #inTurn(act: (here: Here) => Promise<void>): void {
    this.#hearing = this.#hearing
      .then(() => (this.#here ? act(this.#here) : undefined))
      .catch((error: Error) => {
        this.#here?.log.logger.warn(`what another machine has done is not known: ${error.message}`);
        this.#here?.events.missed();
      });
  }

  /** Whoever listens asks again how it is. */
  onMissed(): void {
    this.#progress.clear();
    this.#here?.events.missed();
    this.onWork();
  }

  /** Nothing happens where the job does not run here. */
  onCancel(jobId: string, keep: boolean): void {
    const core = this.#here?.core;
    core?.send({ type: 'cancel-running', atMs: core.nowMs(), jobId, keep });
  }

  /** Another machine may draw it already: what is drawn here is of no use. */
  onLost(jobId: string): void {
    this.#here?.log.logger.warn(
      { job: jobId },
      'the job was taken from this machine, which the database had not heard of for too long',
    );
    this.onCancel(jobId, false);
  }

  onAway(error: Error | null): void {
    const logger = this.#here?.log.logger;
    if (error)
      logger?.error({ code: 'STORE_UNREACHABLE' }, `the shared job database does not answer: ${error.message}`);
    else logger?.info('the shared job database answers again');
  }
}

/** What has become of it since, others will tell. */
function eventOf(job: Job, news: JobNews): JobEvent | null {
  const { id: jobId, status, attempts: attempt, step, startedOverReason, model, machine } = job;
  if (news === 'ended') return status === 'queued' || status === 'running' ? null : { type: status, jobId, job };
  if (news === 'queued' || news === 'moved') return status === 'queued' ? { type: news, jobId, job } : null;
  if (news === 'requeued')
    return { type: news, jobId, attempt, step, reason: 'another machine gave it back, or was lost' };
  const device = job.devices.at(-1);
  if (status !== 'running' || device === undefined || model === null) return null;
  return { type: 'running', jobId, attempt, step, startedOverReason, device, machine, model };
}
