/** What can be done with finished pictures. */
import { ApiError, call } from '../api/http';
import { pictures } from '../words';
import { asked } from './jobs';
import { tell, tellError } from './ui';

/** Pictures that the server marks at once. */
const AT_ONCE = 1000;

/** What was thrown away, last of all at the end, to be had again. */
const thrownAway: (readonly string[])[] = [];

export function star(ids: readonly string[], starred: boolean): Promise<readonly string[]> {
  return mark(ids, { starred });
}

/** Gives those that are in the trash now, and were not before. */
export async function trash(ids: readonly string[]): Promise<readonly string[]> {
  const gone = await mark(ids, { trashed: true });
  if (gone.length === 0) return gone;
  thrownAway.push(gone);
  tell(`${pictures(gone.length)} in the trash.`, { undo: () => void restore(gone) });
  return gone;
}

export async function restore(ids: readonly string[]): Promise<void> {
  const at = thrownAway.indexOf(ids);
  if (at >= 0) thrownAway.splice(at, 1);
  await mark(ids, { trashed: false });
}

export function canUndo(): boolean {
  return thrownAway.length > 0;
}

/** What was thrown away last. */
export async function undo(): Promise<void> {
  const last = thrownAway.at(-1);
  if (last) await restore(last);
}

export function emptyTrash(): Promise<void> {
  return asked('DELETE', 'api/v1/images/trash');
}

/** Gives those that were changed; of what fails, what had been done before. */
async function mark(ids: readonly string[], marks: { starred?: boolean; trashed?: boolean }): Promise<string[]> {
  const changed: string[] = [];
  try {
    for (let at = 0; at < ids.length; at += AT_ONCE) {
      const body = { ids: ids.slice(at, at + AT_ONCE), ...marks };
      changed.push(...(await call<{ changed: string[] }>('PATCH', 'api/v1/images', { body })).changed);
    }
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    tellError(error);
  }
  return changed;
}
