/**
 * Holds the live state: events are collected and applied once per frame, the connection is made anew by itself, and let
 * go while nobody looks: browsers have six for all tabs together.
 */
import type { SnapshotAnswer } from '@qwen-supervisor/protocol/answers';
import { create } from 'zustand';
import { readEvents, type Told } from '../api/event-stream';
import { ApiError, call } from '../api/http';
import { notify } from '../platform/notify';
import { load } from '../platform/storage';
import { pictures } from '../words';
import { apply } from './apply';
import type { Connection } from './sentence';
import { fromSnapshot, type LiveState } from './state';

interface Live {
  state: LiveState | null;
  connection: Connection;
  /** By our clock: when the state was last known to be true. */
  asOfMs: number;
  /** The version that this page was made for; another one is told. */
  ownVersion: string | null;
  /** Keys are asked for, and there is none. */
  signedOut: boolean;
}

export const useLive = create<Live>(() => ({
  state: null,
  connection: { kind: 'connecting' },
  asOfMs: Date.now(),
  ownVersion: null,
  signedOut: false,
}));

/** Hears of each event after it was applied. */
type Listener = (name: string, data: unknown) => void;
const listeners = new Set<Listener>();
export function onEvent(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

const BACKOFF_MS = [500, 1000, 2000, 4000, 8000];
/** A tab that nobody has looked at for so long lets its connection go. */
const HIDDEN_MS = 60_000;
/** From one look of a tab that is hidden to the next. */
const LOOK_MS = 30_000;
/** Jobs of the queue that are known at least, where there are more. */
const KNOWN_AHEAD = 10;
/** What is waited for a frame: a hidden tab has none. */
const FRAME_MS = 100;

let cursor: string | null = null;
let failures = 0;
let connectionOf = new AbortController();
let wake = () => {};
let pending: Told[] = [];
let scheduled = false;

/** Goes on for as long as the page is there. */
export async function live(): Promise<never> {
  document.addEventListener('visibilitychange', noteVisibility);
  window.addEventListener('online', () => wake());
  noteVisibility();
  for (;;) {
    try {
      if (isUnwatched()) await lookNowAndThen();
      await connect();
      throw new Error('the stream has ended');
    } catch (error) {
      await afterFailure(error as Error);
    }
  }
}

/** Since when nobody looks; null while somebody does. */
let hiddenSinceMs: number | null = null;
let hiding: ReturnType<typeof setTimeout> | undefined;

function noteVisibility(): void {
  clearTimeout(hiding);
  if (document.visibilityState === 'visible') {
    hiddenSinceMs = null;
    return wake();
  }
  hiddenSinceMs ??= Date.now();
  hiding = setTimeout(() => {
    connectionOf.abort();
    wake();
  }, HIDDEN_MS);
}

function isUnwatched(): boolean {
  return hiddenSinceMs !== null && Date.now() - hiddenSinceMs >= HIDDEN_MS;
}

/** Without a connection: title and notices need no more. */
async function lookNowAndThen(): Promise<void> {
  useLive.setState({ connection: { kind: 'hidden' } });
  while (isUnwatched()) {
    await awake(LOOK_MS);
    await takeSnapshot(new AbortController().signal);
  }
}

/** Tries at once, after a sign-in. */
export function reconnect(): void {
  cursor = null;
  useLive.setState({ signedOut: false });
  wake();
}

async function connect(): Promise<void> {
  connectionOf = new AbortController();
  const { signal } = connectionOf;
  if (cursor === null) await takeSnapshot(signal);
  await readEvents(`api/v1/events?lastEventId=${cursor}`, signal, {
    open() {
      failures = 0;
      useLive.setState({ connection: { kind: 'open' }, asOfMs: Date.now() });
    },
    event: collect,
  });
}

async function takeSnapshot(signal: AbortSignal): Promise<void> {
  const snapshot = await call<SnapshotAnswer>('GET', 'api/v1/snapshot', { signal });
  const { state: before, ownVersion } = useLive.getState();
  cursor = snapshot.lastEventId;
  pending = [];
  const state = fromSnapshot(snapshot, Date.now(), before);
  useLive.setState({ state, asOfMs: Date.now(), ownVersion: ownVersion ?? snapshot.version, signedOut: false });
  if (before) tellAway(before, state);
  // A page of another version is told to whoever looks at it, and renewed where nobody does.
  if (ownVersion !== null && ownVersion !== snapshot.version && document.visibilityState === 'hidden')
    location.reload();
  for (const listener of listeners) listener('snapshot', null);
}

async function afterFailure(error: Error): Promise<void> {
  if (isUnwatched() && connectionOf.signal.aborted) return;
  // For another snapshot, and not for want of a server.
  if (cursor === null && connectionOf.signal.aborted) return;
  if (error instanceof ApiError && error.status === 401) {
    useLive.setState({ signedOut: true });
    return awake(null);
  }
  const { connection } = useLive.getState();
  const backoffMs = (BACKOFF_MS[Math.min(failures++, BACKOFF_MS.length - 1)] as number) * (0.75 + Math.random() / 2);
  const sinceMs = connection.kind === 'lost' ? connection.sinceMs : Date.now();
  useLive.setState({ connection: { kind: 'lost', sinceMs, nextTryAtMs: Date.now() + backoffMs } });
  // A refusal that is none of the connection's: the cursor may be what is wrong.
  if (error instanceof ApiError && error.status >= 400 && error.status < 500) cursor = null;
  return awake(backoffMs);
}

/** Resolves after a while, or when somebody looks, or the network is back. */
function awake(afterMs: number | null): Promise<void> {
  return new Promise((resolve) => {
    const timer = afterMs === null ? undefined : setTimeout(resolve, afterMs);
    wake = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}

function collect(told: Told): void {
  // What comes in the same piece as the one that has ended it.
  if (connectionOf.signal.aborted) return;
  if (told.name === 'reset') return beginAnew();
  pending.push(told);
  if (told.id !== null) cursor = told.id;
  if (scheduled) return;
  scheduled = true;
  const timer = setTimeout(flush, FRAME_MS);
  requestAnimationFrame(() => {
    clearTimeout(timer);
    flush();
  });
}

/** Too much was missed, or is not known: from how it is now. */
function beginAnew(): void {
  cursor = null;
  connectionOf.abort();
}

/** Of the queue the first ones are known: where they have been drawn, or others come before them, it is asked again. */
function isBehind({ strangers, queue, status: { queue: counts } }: LiveState): boolean {
  return (queue.length < KNOWN_AHEAD && counts.queued > queue.length) || strangers.length > 0;
}

function flush(): void {
  if (!scheduled) return;
  scheduled = false;
  const [events, { state }] = [pending, useLive.getState()];
  pending = [];
  if (!state) return;
  const nowMs = Date.now();
  let next = state;
  for (const { name, data } of events) next = apply(next, name, data, nowMs + state.clockAheadMs);
  useLive.setState({ state: next, asOfMs: nowMs });
  for (const { name, data } of events) for (const listener of listeners) listener(name, data);
  tellDone(events.filter(({ name }) => name === 'done').length);
  if (isBehind(next)) beginAnew();
}

/** Where nobody looks at the page, and whoever does not wants to know. */
function tellDone(count: number): void {
  if (count > 0 && load('notices') === true) notify(`${pictures(count)} done`);
}

/** At most one notice for all that came to its end meanwhile. */
function tellAway(before: LiveState, now: LiveState): void {
  const known = new Set(before.ended.map(({ id }) => id));
  const done = now.ended.filter(({ id, status }) => status === 'done' && !known.has(id)).length;
  if (done === 0) return;
  if (document.visibilityState === 'hidden') tellDone(done);
  else for (const listener of listeners) listener('away', done);
}
