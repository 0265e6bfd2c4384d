/** The index of all pictures: short enough to be had whole, so that every place of the gallery is one scroll away. */

import type { Job } from '@qwen-supervisor/protocol/job';
import type { PictureFacets } from '@qwen-supervisor/protocol/messages';
import { type QueryClient, useQuery } from '@tanstack/react-query';
import { create } from 'zustand';
import { call } from '../../api/http';
import type { Events } from '../../live/apply';
import { onEvent } from '../../live/store';
import type { Entry } from './layout';

export interface Filter {
  search: string;
  starred: boolean;
  trashed: boolean;
  model: string | null;
  /** `1328x1328`. */
  size: string | null;
}

export const NO_FILTER: Filter = { search: '', starred: false, trashed: false, model: null, size: null };

/** Of the gallery: stays while one looks at a picture or another screen. */
interface GalleryView {
  filter: Filter;
  /** Of the picture that has the focus. */
  focus: string | null;
  selected: ReadonlySet<string>;
  scrollTop: number;
}

export const useGallery = create<GalleryView>(() => ({
  filter: NO_FILTER,
  focus: null,
  selected: new Set(),
  scrollTop: 0,
}));

const PAGE = 5000;

async function allPictures(filter: Filter): Promise<Entry[]> {
  const { search, starred, trashed, model, size } = filter;
  const [width, height] = size?.split('x') ?? [];
  const query = new URLSearchParams({
    limit: String(PAGE),
    ...(search.trim() === '' ? {} : { search }),
    ...(starred ? { starred: 'true' } : {}),
    ...(trashed ? { trashed: 'true' } : {}),
    ...(model === null ? {} : { model }),
    ...(width === undefined || height === undefined ? {} : { width, height }),
  });
  const all: Entry[] = [];
  for (let cursor: number | null = null; ; ) {
    if (cursor !== null) query.set('cursor', String(cursor));
    const page: { pictures: Entry[]; next: number | null } = await call('GET', `api/v1/images?${query}`);
    all.push(...page.pictures);
    if (page.next === null) return all;
    cursor = page.next;
  }
}

export function usePictures(filter: Filter) {
  return useQuery({
    queryKey: ['pictures', filter],
    queryFn: () => allPictures(filter),
    staleTime: Number.POSITIVE_INFINITY,
    // While another filter is asked for, what was there stays.
    placeholderData: (before) => before,
  });
}

export function useFacets() {
  return useQuery({ queryKey: ['facets'], queryFn: () => call<PictureFacets>('GET', 'api/v1/images/facets') });
}

/** The job of a picture, whatever became of it. */
export function useJob(id: string) {
  return useQuery({ queryKey: ['job', id], queryFn: () => call<Job>('GET', `api/v1/jobs/${id}`), staleTime: 5000 });
}

/** Keeps what was asked for true, on whatever screen one is. */
export function keepTrue(queries: QueryClient): void {
  onEvent((name, data) => hear(queries, name, data));
}

/** Without asking for all of it again. */
function hear(queries: QueryClient, name: string, data: unknown): void {
  if (name === 'snapshot') return void queries.invalidateQueries();
  if (name === 'done' || name === 'failed' || name === 'cancelled')
    queries.setQueryData(['job', (data as Job).id], data);
  if (name === 'done') {
    void queries.invalidateQueries({ queryKey: ['facets'] });
    return void changeLists(queries, (entries, filter) => (isAll(filter) ? added(entries, data as Job) : null));
  }
  if (name !== 'pictures') return;
  const { ids, change } = data as Events['pictures'];
  const changed = new Set(ids);
  // What is in the trash, or back from it, is no longer where it was selected.
  if (change !== 'starred' && change !== 'unstarred')
    useGallery.setState(({ selected }) => ({ selected: new Set([...selected].filter((id) => !changed.has(id))) }));
  for (const id of ids) void queries.invalidateQueries({ queryKey: ['job', id] });
  void queries.invalidateQueries({ queryKey: ['facets'] });
  changeLists(queries, (entries, filter) => {
    if (change === 'removed' || (change === 'trashed' && !filter.trashed) || (change === 'restored' && filter.trashed))
      return entries.filter(([id]) => !changed.has(id));
    if (change === 'trashed' || change === 'restored' || filter.starred) return null;
    const star = change === 'starred' ? 1 : 0;
    return entries.map((entry) => (changed.has(entry[0]) ? [entry[0], entry[1], entry[2], entry[3], star] : entry));
  });
}

/** `change` gives null where the list has to be asked for anew. */
function changeLists(queries: QueryClient, change: (entries: Entry[], filter: Filter) => Entry[] | null): void {
  for (const [queryKey, entries] of queries.getQueriesData<Entry[]>({ queryKey: ['pictures'] })) {
    // What is on its way may be of before.
    const isAsked = queries.getQueryState(queryKey)?.fetchStatus === 'fetching';
    const next = entries && !isAsked && change(entries, queryKey[1] as Filter);
    if (next) queries.setQueryData(queryKey, next);
    else void queries.cancelQueries({ queryKey }).then(() => queries.invalidateQueries({ queryKey }));
  }
}

function isAll({ search, starred, trashed, model, size }: Filter): boolean {
  return search.trim() === '' && !starred && !trashed && model === null && size === null;
}

function added(entries: Entry[], { id, width, height, finishedAt, createdAt }: Job): Entry[] {
  if (entries.some(([known]) => known === id)) return entries;
  return [[id, width, height, Date.parse(finishedAt ?? createdAt), 0], ...entries];
}
