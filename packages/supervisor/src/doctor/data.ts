/** The data folder: can it be used, is there room, and is what is in it of this version? */
import { accessSync, constants, existsSync, statfsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import Database from 'libsql';
import { fileSystemOf } from '../machine/file-system.js';
import { type Finding, fail, gigabytes, pass, warn } from './finding.js';

/** Nothing can be stored below the first; pictures and logs of a week may not fit below the second. */
const DISK_MIN = 100e6;
const DISK_LOW = 5e9;

/** It is made by the first start: then where it will be counts. */
export function folderFinding(dataDir: string): Finding {
  const there = nearest(dataDir);
  if (!statSync(there).isDirectory())
    return fail('data folder', `${there} is no folder`, 'name another with --data-dir, or move that file away');
  try {
    accessSync(there, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    const owner = statSync(there).uid;
    return fail(
      'data folder',
      `${there} cannot be written to: ${(error as Error).message}; it belongs to user ${owner}`,
      `run it as that user, or chown -R ${process.getuid?.() ?? ''} ${there}`,
    );
  }
  return pass('data folder', there === dataDir ? dataDir : `${dataDir} will be made`);
}

/** `fileSystem`: its name, where it is one that locks badly; null for any other. */
export function diskFinding({ freeBytes, fileSystem }: { freeBytes: number; fileSystem: string | null }): Finding {
  const says = `${gigabytes(freeBytes)} free`;
  if (freeBytes < DISK_MIN) return fail('disk', says, 'make room: nothing can be stored');
  if (fileSystem !== null)
    return warn('disk', `${says}, on ${fileSystem}, which may not lock`, 'use a folder on a local disk');
  if (freeBytes < DISK_LOW)
    return warn('disk', says, "make room, or let old pictures go: 'keep-gigabytes' and 'keep-days'");
  return pass('disk', says);
}

/** What `diskFinding` is asked with. */
export function diskOf(dataDir: string): { freeBytes: number; fileSystem: string | null } {
  const there = nearest(dataDir);
  const { bavail, bsize } = statfsSync(there);
  const { name, locksBadly } = fileSystemOf(there);
  return { freeBytes: bavail * bsize, fileSystem: locksBadly ? name : null };
}

/** Only where no supervisor has it open. `newest`: the version of this program. */
export function databaseFinding(dataDir: string, newest: number): Finding {
  const file = join(dataDir, 'jobs.db');
  if (!existsSync(file)) return pass('database', 'will be made');
  try {
    const db = new Database(file, { readonly: true });
    try {
      const { user_version: version } = db.prepare('PRAGMA user_version').get() as { user_version: number };
      const { quick_check: verdict } = db.prepare('PRAGMA quick_check(1)').get() as { quick_check: string };
      if (verdict !== 'ok') return damaged(file, verdict);
      const { jobs } = db.prepare('SELECT count(*) AS jobs FROM jobs').get() as { jobs: number };
      if (version > newest)
        return fail('database', `${file} was written by a newer version of this program`, 'install that version again');
      const note = version < newest ? '; of an older version, and changed by the next start' : '';
      return pass('database', `${jobs} jobs${note}`);
    } finally {
      db.close();
    }
  } catch (error) {
    const { code = '', message } = error as Error & { code?: string };
    if (/BUSY|LOCKED/.test(code) || /locked/.test(message))
      return warn('database', `${file} is in use by another process`, 'look as the user whose supervisor runs there');
    if (/CANTOPEN|PERM|READONLY/.test(code) || /unable to open/.test(message))
      return fail('database', `${file} cannot be opened: ${message}`, 'run it as the user to whom it belongs');
    return damaged(file, message);
  }
}

function damaged(file: string, how: string): Finding {
  return fail(
    'database',
    `${file}: ${how}`,
    'put back a copy of it, or let the next start keep it aside and begin anew',
  );
}

function nearest(path: string): string {
  return existsSync(path) || path === dirname(path) ? path : nearest(dirname(path));
}
