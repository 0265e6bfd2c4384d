/** What a supervisor does about what others do that share its job database. */
import type { Job, JobEvent } from '@qwen-supervisor/protocol/job';
import type { Core, JobDesk } from './jobs/job-desk.js';
import type { ClaimHooks, JobNews } from './jobs/postgres-claims.js';
import type { EventLog } from './records/event-log.js';
import type { Log } from './records/log.js';

interface Here {
  core: Core;
  jobs: JobDesk;
  events: EventLog;
  log: Log;
}

/** Heard by a store that is opened before there is anybody who could do something about it. */
export class OtherMachines implements ClaimHooks {
  #here: Here | null = null;
  #telling: Promise<void> = Promise.resolve();

  attend(here: Here): void {
    this.#here = here;
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

  /** One after the other, as it happened. */
  onJobs(ids: string[], news: JobNews): void {
    this.#telling = this.#telling
      .then(() => this.#tell(ids, news))
      .catch((error: Error) => {
        this.#here?.log.logger.warn(`what another machine has done is not known: ${error.message}`);
        this.#here?.events.missed();
      });
  }

  async #tell(ids: string[], news: JobNews): Promise<void> {
    if (!this.#here) return;
    const { jobs, events } = this.#here;
    jobs.othersChanged();
    const filter = { status: null, source: null, group: null, ids };
    for (let cursor: number | null = null, more = true; more; more = cursor !== null) {
      const page: { jobs: Job[]; next: number | null } = await jobs.list(filter, cursor, ids.length);
      await events.publishAll(page.jobs.flatMap((job) => eventOf(job, news) ?? []));
      cursor = page.next;
    }
  }

  /** Whoever listens asks again how it is. */
  onMissed(): void {
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
  const { id: jobId, status, attempts: attempt, step, startedOverReason, model } = job;
  if (news === 'ended') return status === 'queued' || status === 'running' ? null : { type: status, jobId, job };
  if (news === 'queued' || news === 'moved') return status === 'queued' ? { type: news, jobId, job } : null;
  if (news === 'requeued')
    return { type: news, jobId, attempt, step, reason: 'another machine gave it back, or was lost' };
  const device = job.devices.at(-1);
  if (status !== 'running' || device === undefined || model === null) return null;
  return { type: 'running', jobId, attempt, step, startedOverReason, device, model };
}
