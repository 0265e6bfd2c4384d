/**
 * The supervisor's view of the checkpoints of jobs: by name alone, how far each job is, and which are no longer
 * wanted.
 */
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { TEMPORARY } from '@qwen-supervisor/files/replace-file';
import { CHECKPOINTS_FOLDER, parseCheckpointName } from '@qwen-supervisor/protocol/data-files';

/** Steps that are kept of each job. */
export function checkpointedSteps(dataDir: string): Map<string, number> {
  const steps = new Map<string, number>();
  for (const name of readdirSync(join(dataDir, CHECKPOINTS_FOLDER))) {
    const parsed = parseCheckpointName(name);
    if (parsed) steps.set(parsed.jobId, Math.max(parsed.step, steps.get(parsed.jobId) ?? 0));
  }
  return steps;
}

/** Removes the checkpoints of the jobs that are not wanted. */
export function removeCheckpoints(dataDir: string, isWanted: (jobId: string) => boolean): void {
  const folder = join(dataDir, CHECKPOINTS_FOLDER);
  for (const name of readdirSync(folder)) {
    const parsed = parseCheckpointName(name);
    if (parsed && !isWanted(parsed.jobId)) rmSync(join(folder, name), { force: true });
  }
}

/** Removes what killed workers have left half written. Only while no worker runs. */
export function removeHalfWritten(dataDir: string): void {
  for (const folder of [CHECKPOINTS_FOLDER, 'images'].map((name) => join(dataDir, name))) {
    for (const name of readdirSync(folder)) if (name.endsWith(TEMPORARY)) rmSync(join(folder, name), { force: true });
  }
}
