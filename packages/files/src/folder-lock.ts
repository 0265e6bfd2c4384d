/** One process at a time works in a folder. The kernel drops the lock with the process, however that ends. */
import { join } from 'node:path';
import Database from 'libsql';

/** Runs `act` under the lock of `folder`, which is there; throws what `busy` gives where another process has it. */
export async function withFolderLock<T>(
  folder: string,
  busy: (cause: unknown) => Error,
  act: () => Promise<T>,
): Promise<T> {
  const db = new Database(join(folder, 'lock.db'));
  try {
    try {
      db.exec('PRAGMA busy_timeout = 0; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE;');
    } catch (cause) {
      throw busy(cause);
    }
    return await act();
  } finally {
    db.close();
  }
}
