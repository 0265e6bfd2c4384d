/**
 * What is on its way to the server. Each request has a key by which the server knows it again, so that sending it once
 * more, whatever has become of the first time, makes no second job.
 */
import type { Job } from '@qwen-supervisor/protocol/job';
import type { NativeRequest } from '@qwen-supervisor/protocol/job-request';
import { create } from 'zustand';
import { ApiError, call } from '../api/http';
import { newId } from '../platform/ids';
import { load, ofThisTab, save } from '../platform/storage';

export interface Letter {
  key: string;
  jobs: NativeRequest[];
  /** Why it has not arrived. */
  error: ApiError | null;
  state: 'sending' | 'waiting' | 'refused';
}

export const useOutbox = create<{ letters: readonly Letter[] }>(() => ({ letters: [] }));

const AGAIN_MS = 1500;

useOutbox.subscribe(({ letters }) => {
  // A reload takes them along: sent twice they are one. Pictures in them may be larger than what is kept.
  const kept = letters.filter(({ jobs }) => !jobs.some(({ initImage }) => initImage?.startsWith('data:')));
  save(
    'outbox',
    kept.map(({ key, jobs }) => ({ key, jobs })),
    ofThisTab,
  );
});

/** What was on its way when the page was left. */
export function resume(): void {
  const kept = load<Pick<Letter, 'key' | 'jobs'>[]>('outbox', ofThisTab) ?? [];
  useOutbox.setState({ letters: kept.map((one) => ({ ...one, error: null, state: 'sending' })) });
  for (const { key } of kept) void deliver(key);
}

export function send(jobs: NativeRequest[]): void {
  const letter: Letter = { key: newId(), jobs, error: null, state: 'sending' };
  useOutbox.setState(({ letters }) => ({ letters: [...letters, letter] }));
  void deliver(letter.key);
}

/** Once more what was refused, or waits. */
export function sendAgain(key: string): void {
  change(key, { state: 'sending' });
  void deliver(key);
}

export function discard(key: string): void {
  useOutbox.setState(({ letters }) => ({ letters: letters.filter((letter) => letter.key !== key) }));
}

async function deliver(key: string): Promise<void> {
  const letter = useOutbox.getState().letters.find((one) => one.key === key);
  if (!letter) return;
  const headers = { 'idempotency-key': key };
  try {
    if (letter.jobs.length === 1) await call<Job>('POST', 'api/v1/jobs', { body: letter.jobs[0], headers });
    else await call('POST', 'api/v1/groups', { body: { jobs: letter.jobs }, headers });
    discard(key);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    change(key, { error, state: error.isPassing ? 'waiting' : 'refused' });
    if (error.isPassing) setTimeout(() => void deliver(key), AGAIN_MS);
  }
}

function change(key: string, changes: Partial<Letter>): void {
  useOutbox.setState(({ letters }) => ({
    letters: letters.map((letter) => (letter.key === key ? { ...letter, ...changes } : letter)),
  }));
}
