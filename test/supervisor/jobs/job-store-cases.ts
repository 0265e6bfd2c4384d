/** What the specifications of a job store share, and the engines that they hold for. */
import type { Job } from '@qwen-supervisor/protocol/job';
import type { JobRequest } from '@qwen-supervisor/protocol/job-request';
import type { JobOutcome } from '@qwen-supervisor/protocol/messages';
import type { JobStore, Taker } from '@qwen-supervisor/supervisor/jobs/job-store';
import { openSqliteJobStore } from '@qwen-supervisor/supervisor/jobs/sqlite-database';
import { onTestFinished } from 'vitest';
import { temporaryFolder } from '../../fixture-files.js';
import { hasPostgres, pglite, privateCluster } from './postgres-engines.js';

export type Open = (folder: string) => Promise<JobStore>;

/** Those of a file: each has its databases to itself. */
export function engines(): [string, Open][] {
  const all: [string, Open][] = [
    ['SQLite', async (folder) => openSqliteJobStore(folder).store],
    ['pg-boss and PGlite', pglite().open],
  ];
  return hasPostgres() ? [...all, ['pg-boss and PostgreSQL', privateCluster().open]] : all;
}

export const REQUEST: JobRequest = {
  prompt: 'a fox',
  negativePrompt: ' ',
  width: 128,
  height: 128,
  numInferenceSteps: 20,
  trueCfgScale: 4,
  seed: 2 ** 53 - 1,
  initImage: null,
  strength: null,
  mask: null,
};
export const DONE: JobOutcome = {
  status: 'done',
  step: 20,
  imageId: 'i1',
  file: 'images/i1.png',
  sha256: 'ab',
  bytes: 3,
};
export const FAILED: JobOutcome = { status: 'failed', error: { code: 'INFERENCE_FAILED', message: 'm', hint: 'h' } };
export const ANY = { status: null, source: null, group: null, ids: null };
/** A worker that draws every picture. */
export const TAKES_ANY: Taker = { maxPixels: null, leaves: [] };
export const MANY = 1000;

export const order = (priority = 0, request = REQUEST) => ({
  request,
  priority,
  source: 'api' as const,
  retryOf: null,
  owner: null,
});

export async function put(store: JobStore, priority = 0): Promise<Job> {
  const { jobs } = await store.put([order(priority)], null, MANY, MANY);
  return jobs[0] as Job;
}

/** Opens a store that is closed after the test. */
export async function opened(open: Open, folder = temporaryFolder()): Promise<JobStore> {
  const store = await open(folder);
  onTestFinished(() => store.close());
  return store;
}
