/** What a supervisor does about what others do that share its job database. */
import type { Core, JobDesk } from './jobs/job-desk.js';
import type { ClaimHooks } from './jobs/postgres-claims.js';
import type { Log } from './records/log.js';

/** Heard by a store that is opened before there is anybody who could do something about it. */
export class OtherMachines implements ClaimHooks {
  #here: { core: Core; jobs: JobDesk; log: Log } | null = null;

  attend(core: Core, jobs: JobDesk, log: Log): void {
    this.#here = { core, jobs, log };
  }

  onWork(): void {
    if (!this.#here) return;
    const { core, jobs } = this.#here;
    jobs.othersChanged();
    core.send({ type: 'job-queued', atMs: core.nowMs() });
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
