/** A job as the engines keep it: one row, with what is itself a structure as JSON; and what they make of rows. */
import { randomBytes } from 'node:crypto';
import type { Job, JobSource, JobStatus } from '@qwen-supervisor/protocol/job';
import { type JobRequest, requestOf, stepsOf } from '@qwen-supervisor/protocol/job-request';
import type { JobOutcome } from '@qwen-supervisor/protocol/messages';

/** Characters of the requests of one page. */
const PAGE_CHARACTERS = 1 << 20;
/** Words that are searched for: more say nothing more. */
const WORDS_MAX = 20;

/** Shape of the column `image`. */
export interface StoredImage {
  id: string;
  file: string;
  sha256: string;
  bytes: number;
}

export interface Row {
  /** Counts the jobs as they arrive. */
  position: number;
  id: string;
  status: JobStatus;
  request: string;
  priority: number;
  source: JobSource;
  group_id: string | null;
  retry_of: string | null;
  step: number;
  attempts: number;
  cancel_requested: number;
  own_deaths: number;
  outside_deaths: number;
  resumed_at_step: number | null;
  started_over_reason: string | null;
  devices: string;
  device_reason: string | null;
  /** Only where several share the store. */
  machine?: string | null;
  model: string | null;
  starred: number;
  trashed_at: string | null;
  fingerprint: string | null;
  image: string | null;
  error: string | null;
  created_at: string;
  finished_at: string | null;
}

export function toJob(row: Row): Job {
  const request = requestOf(JSON.parse(row.request) as JobRequest);
  const steps = stepsOf(request);
  const image = row.image === null ? null : (JSON.parse(row.image) as StoredImage);
  return {
    id: row.id,
    status: row.status,
    ...request,
    step: row.step,
    steps,
    progress: row.status === 'done' ? 1 : row.step / steps,
    attempts: row.attempts,
    priority: row.priority,
    position: null,
    eta: null,
    source: row.source,
    group: row.group_id,
    retryOf: row.retry_of,
    resumedAtStep: row.resumed_at_step,
    startedOverReason: row.started_over_reason,
    devices: JSON.parse(row.devices),
    deviceReason: row.device_reason,
    machine: row.machine ?? null,
    model: row.model,
    images: image ? [{ id: image.id, url: `/api/v1/images/${image.id}`, sha256: image.sha256 }] : [],
    starred: row.starred === 1,
    trashedAt: row.trashed_at,
    error: row.error === null ? null : JSON.parse(row.error),
    createdAt: row.created_at,
    finishedAt: row.finished_at,
  };
}

export function newId(kind: 'job' | 'group'): string {
  return `${kind}_${randomBytes(12).toString('hex')}`;
}

export function imageOf(outcome: JobOutcome): string | null {
  if (outcome.status !== 'done') return null;
  const { imageId: id, file, sha256, bytes } = outcome;
  return JSON.stringify({ id, file, sha256, bytes } satisfies StoredImage);
}

export function errorOf(outcome: JobOutcome): string | null {
  return outcome.status === 'failed' ? JSON.stringify(outcome.error) : null;
}

/** Prompts may be long: a page has as many jobs as go into one message with ease, and one at least. */
export function fittingPage<R extends { request?: string }>(rows: R[], limit: number): R[] {
  let characters = 0;
  const fitting = rows.findIndex(({ request = '' }) => {
    characters += request.length;
    return characters > PAGE_CHARACTERS;
  });
  return rows.slice(0, fitting < 0 ? limit : Math.min(limit, Math.max(1, fitting)));
}

/** As LIKE takes them: what means something to it is only a character here. */
export function wordsOf(search: string): string[] {
  const words = search.split(/\s+/).filter((word) => word !== '');
  return words.slice(0, WORDS_MAX).map((word) => word.replace(/[\\%_]/g, '\\$&'));
}
