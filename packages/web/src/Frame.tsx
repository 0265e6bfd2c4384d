import { type ReactNode, useEffect } from 'react';
import { Link, useLocation } from 'wouter';
import { useUi } from './actions/ui';
import { useNow } from './live/now';
import { sentenceOf, titleOf } from './live/sentence';
import { useLive } from './live/store';
import { Button } from './parts/Button';
import { showInTab } from './platform/title';
import './frame.css';

const SCREENS = [
  ['/', 'Create'],
  ['/queue', 'Queue'],
  ['/gallery', 'Gallery'],
  ['/system', 'System'],
] as const;

/** What is around every screen: where one is, and how the system is. */
export function Frame({ children }: { children: ReactNode }) {
  const [location] = useLocation();
  const queued = useLive(({ state }) => state?.status.queue.queued ?? 0);
  const isStale = useLive(({ connection, state }) => state !== null && connection.kind === 'lost');
  const isCurrent = (path: string) => (path === '/' ? location === '/' : location.startsWith(path));
  return (
    <div className="frame" data-stale={isStale || undefined}>
      <a className="skip" href={`${window.location.pathname}#main`}>
        To the content
      </a>
      <header className="top">
        <span className="brand">qwen-supervisor</span>
        <nav aria-label="Screens" className="tabs">
          {SCREENS.map(([path, name]) => (
            <Link key={path} href={path} aria-current={isCurrent(path) ? 'page' : undefined}>
              {name}
              {path === '/queue' && queued > 0 && <span className="count">{queued}</span>}
            </Link>
          ))}
        </nav>
        <Button icon="help" iconOnly kind="quiet" onClick={() => useUi.setState({ open: 'help' })}>
          Keys and settings
        </Button>
      </header>
      <StatusLine />
      {children}
    </div>
  );
}

function StatusLine() {
  const state = useLive(({ state }) => state);
  const connection = useLive(({ connection }) => connection);
  const ownVersion = useLive(({ ownVersion }) => ownVersion);
  const nowMs = useNow();
  const title = state && titleOf(state, connection);
  const phase = state?.running[0]?.phase;
  useEffect(() => {
    if (title) showInTab(title.text, title.icon, phase === undefined || title.icon === 'icon-bad');
  }, [title, phase]);
  if (!state) {
    const isLost = connection.kind === 'lost';
    return (
      <p className="status" data-tone={isLost ? 'warn' : 'busy'}>
        <span className="dot" aria-hidden="true" />
        {isLost ? 'The server does not answer. Trying again.' : 'Connecting.'}
      </p>
    );
  }
  const { tone, text, progress } = sentenceOf(state, connection, nowMs);
  const isOther = ownVersion !== null && ownVersion !== state.version;
  return (
    <section className="status" data-tone={tone} aria-label="State of the server">
      <span className="dot" aria-hidden="true" />
      <span className="grow" data-testid="status">
        {text}
      </span>
      {progress !== null && <progress value={progress} max={1} aria-label="Progress" />}
      {isOther && (
        <Button kind="plain" onClick={() => window.location.reload()}>
          The server was updated: reload the page
        </Button>
      )}
      <Announcements />
    </section>
  );
}

/** For those who listen: that a picture is begun, done or has failed, and not each step. */
function Announcements() {
  const isRunning = useLive(({ state }) => state !== null && state.running.length > 0);
  const last = useLive(({ state }) => state?.ended[0]);
  const text = isRunning ? 'A picture is being drawn.' : last ? `The last picture is ${last.status}.` : '';
  return (
    <span className="visually-hidden" role="status">
      {text}
    </span>
  );
}
