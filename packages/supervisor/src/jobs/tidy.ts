/** What nobody needs any more, whatever the bounds are: pictures of requests that were refused, for one. */
import { isTerminal } from '@qwen-supervisor/protocol/job';
import type { Logger } from 'pino';
import { checkpointedSteps, removeCheckpoints } from './job-checkpoints.js';
import type { JobStore } from './job-store.js';
import type { SharedFiles } from './shared-files.js';
import { removeInputs, tidily } from './stored-pictures.js';

interface Place {
  dataDir: string;
  store: JobStore;
  shared: SharedFiles | null;
  log: Logger;
}

export async function tidyUp({ dataDir, store, shared, log }: Place): Promise<void> {
  const inputs = await store.inputs();
  const begunElsewhere = (await shared?.begun()) ?? [];
  const begun = [...new Set([...checkpointedSteps(dataDir).keys(), ...begunElsewhere])];
  const jobs = await Promise.all(begun.map((id) => store.get(id)));
  const open = new Set(jobs.flatMap((job) => (job && !isTerminal(job.status) ? job.id : [])));
  tidily(log, () => {
    // Not those that were begun since.
    removeCheckpoints(dataDir, (id) => open.has(id) || !begun.includes(id));
    removeInputs(dataDir, inputs);
  });
  for (const id of begunElsewhere) if (!open.has(id)) shared?.ended(id);
}
