import { useEffect, useLayoutEffect, useRef, useState } from 'react';
import { readEvents } from '../../api/event-stream';
import { ApiError } from '../../api/http';
import { clock } from '../../live/eta';
import { useLive } from '../../live/store';
import { Button } from '../../parts/Button';
import { childName } from '../../words';
import { addLines, type LogRecord, textOf } from './log-lines';

const LEVELS = { debug: 20, info: 30, warn: 40, error: 50 } as const;
/** Nearer to the end than this is at the end, pixels. */
const NEAR = 24;
const AGAIN_MS = 2000;

export function Log() {
  const [lines, setLines] = useState<readonly LogRecord[]>([]);
  const [problem, setProblem] = useState<string | null>(null);
  const [level, setLevel] = useState<keyof typeof LEVELS>('info');
  const [child, setChild] = useState('all');
  const children = useLive(({ state }) => state?.status.children);
  const [isFollowing, setIsFollowing] = useState(true);
  const [seen, setSeen] = useState(0);
  const box = useRef<HTMLDivElement>(null);
  const isOpen = useLive(({ connection }) => connection.kind === 'open');
  const [attempt, setAttempt] = useState(0);

  useEffect(() => {
    if (!isOpen) return;
    const over = new AbortController();
    let pending: LogRecord[] = [];
    let frame = 0;
    let again: ReturnType<typeof setTimeout> | undefined;
    const flush = () => {
      frame = 0;
      const fresh = pending;
      pending = [];
      setLines((before) => addLines(before, fresh));
    };
    readEvents('api/v1/logs?lines=500', over.signal, {
      open() {
        setLines([]);
        setProblem(null);
      },
      event({ data }) {
        pending.push(data as LogRecord);
        if (frame === 0) frame = requestAnimationFrame(flush);
      },
    })
      .catch((error: Error) => {
        if (error instanceof ApiError && !error.isPassing) setProblem(`${error.message} ${error.hint}`);
        return error;
      })
      .then((error) => {
        // One that has ended is begun anew; one that is refused is not.
        const isRefused = error instanceof ApiError && !error.isPassing;
        if (!over.signal.aborted && !isRefused) again = setTimeout(() => setAttempt(attempt + 1), AGAIN_MS);
      });
    return () => {
      over.abort();
      clearTimeout(again);
      cancelAnimationFrame(frame);
    };
  }, [isOpen, attempt]);

  const shown = lines.filter(
    (line) => line.level >= LEVELS[level] && (child === 'all' || (line.child ?? 'supervisor') === child),
  );
  const newest = shown.at(-1)?.number ?? 0;
  useLayoutEffect(() => {
    const element = box.current;
    if (!element || !isFollowing) return;
    element.scrollTop = element.scrollHeight;
    setSeen(newest);
  }, [newest, isFollowing]);
  const fresh = isFollowing ? 0 : shown.filter(({ number }) => number > seen).length;
  return (
    <section className="panel stack log" aria-label="Log">
      <div className="row">
        <h2 className="grow">Log</h2>
        <label>
          <span className="visually-hidden">Process</span>
          <select value={child} onChange={({ target }) => setChild(target.value)}>
            <option value="all">Every process</option>
            <option value="supervisor">supervisor</option>
            {children?.map(({ name }) => (
              <option key={name} value={name}>
                {childName(name)}
              </option>
            ))}
          </select>
        </label>
        <label>
          <span className="visually-hidden">Least level</span>
          <select value={level} onChange={({ target }) => setLevel(target.value as typeof level)}>
            {Object.keys(LEVELS).map((name) => (
              <option key={name} value={name}>
                {name} and above
              </option>
            ))}
          </select>
        </label>
      </div>
      {problem !== null && <p className="problem">{problem}</p>}
      <div
        ref={box}
        className="lines"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keys
        tabIndex={0}
        role="log"
        aria-label="Lines of the log"
        aria-live="off"
        data-following={isFollowing || undefined}
        onScroll={({ currentTarget: { scrollTop, scrollHeight, clientHeight } }) => {
          const isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR;
          if (isAtEnd !== isFollowing) setIsFollowing(isAtEnd);
        }}
      >
        {shown.map((line) => (
          <div key={line.number} data-level={line.level >= 50 ? 'error' : line.level >= 40 ? 'warn' : undefined}>
            <span className="muted">{clock(Date.parse(line.time))}</span> <span>{line.child ?? 'supervisor'}</span>{' '}
            {textOf(line)}
          </div>
        ))}
      </div>
      {fresh > 0 && (
        <div>
          <Button icon="down" onClick={() => setIsFollowing(true)}>
            {fresh === 1 ? 'One new line' : `${fresh} new lines`}
          </Button>
        </div>
      )}
    </section>
  );
}
