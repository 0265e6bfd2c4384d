/** The supervisor's view of the checkpoints of jobs: by name alone, how far each job is, and which are no longer wanted. */
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { CHECKPOINTS_FOLDER, parseCheckpointName } from '@qwen-supervisor/protocol/checkpoint-name';

/** Steps that are kept of each job. */
export function checkpointedSteps(dataDir: string): Map<string, number> {
  const steps = new Map<string, number>();
  for (const name of readdirSync(join(dataDir, CHECKPOINTS_FOLDER))) {
    const parsed = parseCheckpointName(name);
    if (parsed) steps.set(parsed.jobId, Math.max(parsed.step, steps.get(parsed.jobId) ?? 0));
  }
  return steps;
}

/** Removes the checkpoints of the jobs that are not wanted, and what a killed worker has left half written. */
export function removeCheckpoints(dataDir: string, isWanted: (jobId: string) => boolean): void {
  const folder = join(dataDir, CHECKPOINTS_FOLDER);
  for (const name of readdirSync(folder)) {
    const parsed = parseCheckpointName(name.replace(/\.tmp$/, ''));
    if (!parsed || (isWanted(parsed.jobId) && !name.endsWith('.tmp'))) continue;
    rmSync(join(folder, name), { force: true });
  }
}
