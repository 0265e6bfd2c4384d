/** Which job store a supervisor works with: its own, or one that it shares with those of other machines. */
import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { JobStore } from './job-store.js';
import type { ClaimHooks } from './postgres-claims.js';
import { openSqliteJobStore } from './sqlite-database.js';

export interface OpenedStore {
  store: JobStore;
  /** Where a damaged database of this folder is kept. */
  setAside: string | null;
  /** Jobs in this folder's own database that nobody draws while the shared one is used. */
  leftHere: number;
}

/**
 * `where` is the setting `store`. The folder's own database is opened in any case: its lock is what keeps a second
 * supervisor out of the folder.
 * @throws CodedError ALREADY_RUNNING, JOB_STORE_UNUSABLE, and as `openPostgresJobStore`
 */
export async function openJobStore(where: string, dataDir: string, hooks: ClaimHooks): Promise<OpenedStore> {
  const { store: own, setAside } = openSqliteJobStore(dataDir);
  if (where === 'sqlite') return { store: own, setAside, leftHere: 0 };
  try {
    const { openPostgresJobStore } = await import('./open-postgres.js');
    const shared = await openPostgresJobStore(where, hostOf(dataDir), hooks);
    const { queued, running } = await own.counts();
    // Whatever becomes of the folder: a connection that stays open would keep the process.
    const close = () => shared.close().finally(() => own.close());
    // What this folder has of its own is still found by its id, and its files are wanted.
    const get = async (id: string) => (await shared.get(id)) ?? own.get(id);
    const findImage = async (id: string) => (await shared.findImage(id)) ?? own.findImage(id);
    const inputs = async () => new Set([...(await shared.inputs()), ...(await own.inputs())]);
    return { store: { ...shared, get, findImage, inputs, close }, setAside, leftHere: queued + running };
  } catch (error) {
    await own.close();
    throw error;
  }
}

/** Machines that are copies have one name: what tells them apart is drawn once, and kept in the folder. */
function hostOf(dataDir: string): string {
  const file = join(dataDir, 'machine-id');
  if (!existsSync(file)) writeFileSync(file, randomUUID());
  return `${hostname()} ${readFileSync(file, 'utf8')}`;
}
