/**
 * Names of the checkpoints of running jobs, in the data folder. The name tells the step, so that the supervisor, which never
 * reads one, knows how far a job had got.
 */

/** Folder of the checkpoints below the data folder. */
export const CHECKPOINTS_FOLDER = 'checkpoints';

export function checkpointName(jobId: string, step: number): string {
  return `${jobId}.${step}.ckpt`;
}

/** Job and completed steps of a checkpoint; null for the name of anything else. */
export function parseCheckpointName(name: string): { jobId: string; step: number } | null {
  const [, jobId, step] = /^(\w+)\.(\d+)\.ckpt$/.exec(name) ?? [];
  return jobId === undefined || step === undefined ? null : { jobId, step: Number(step) };
}
