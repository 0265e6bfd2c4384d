/** What can be done with finished pictures. */

import { pictures } from '../words';
import { asked } from './jobs';
import { tell } from './ui';

/** What was thrown away last, to be had again. */
let thrownAway: readonly string[] = [];

export function star(ids: readonly string[], starred: boolean): Promise<void> {
  return asked('PATCH', 'api/v1/images', { ids, starred });
}

export async function trash(ids: readonly string[]): Promise<void> {
  thrownAway = ids;
  await asked('PATCH', 'api/v1/images', { ids, trashed: true });
  tell(`${pictures(ids.length)} in the trash.`, { undo: () => void restore(ids) });
}

export async function restore(ids: readonly string[]): Promise<void> {
  thrownAway = [];
  await asked('PATCH', 'api/v1/images', { ids, trashed: false });
}

export function canUndo(): boolean {
  return thrownAway.length > 0;
}

export function undo(): Promise<void> {
  return restore(thrownAway);
}

export function emptyTrash(): Promise<void> {
  return asked('DELETE', 'api/v1/images/trash');
}
