import { type KeyboardEvent, type MouseEvent, useEffect, useLayoutEffect, useMemo, useRef, useState } from 'react';
import { star, trash } from '../../actions/pictures';
import { ROOT } from '../../api/http';
import { clock } from '../../live/eta';
import { Icon } from '../../parts/Icon';
import { go } from '../../platform/place';
import { useGallery } from './gallery-data';
import { type Entry, type Layout, layout, type Row, visible, walk } from './layout';

/** Pixels beyond the window that are drawn, too. */
const BEYOND = 600;

/** Only what is seen is in the document, and the scrollbar tells the truth about the rest. */
export function Grid({ entries }: { entries: readonly Entry[] }) {
  const scroller = useRef<HTMLDivElement>(null);
  const [room, setRoom] = useState({ width: 0, height: 0 });
  const [top, setTop] = useState(() => useGallery.getState().scrollTop);
  const focus = useGallery(({ focus }) => focus);
  const selected = useGallery(({ selected }) => selected);

  useLayoutEffect(() => {
    const element = scroller.current as HTMLDivElement;
    element.scrollTop = useGallery.getState().scrollTop;
    const observer = new ResizeObserver(() => setRoom({ width: element.clientWidth, height: element.clientHeight }));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  const wished = room.width < 640 ? 130 : room.width > 2000 ? 260 : 190;
  const laid = useMemo(() => layout(entries, Math.max(1, room.width), wished, dayOf), [entries, room.width, wished]);
  const index = useMemo(() => new Map(entries.map(([id], i) => [id, i])), [entries]);
  const focusIndex = Math.min(index.get(focus ?? '') ?? 0, entries.length - 1);
  const isOurs = useRef(false);

  // After a removal the focus is on what took the place of the picture, and goes nowhere else.
  const lastIndex = useRef(focusIndex);
  useEffect(() => {
    if (focus !== null && !index.has(focus) && entries.length > 0) {
      const next = entries[Math.min(lastIndex.current, entries.length - 1)];
      if (next) useGallery.setState({ focus: next[0] });
    } else lastIndex.current = focusIndex;
  }, [entries, focus, index, focusIndex]);
  useEffect(() => {
    if (isOurs.current && focus !== null) document.getElementById(`picture-${focus}`)?.focus({ preventScroll: true });
  }, [focus, top]);

  const show = (at: number) => {
    const row = laid.rows[laid.rowOf[at] as number];
    const element = scroller.current;
    if (!row || !element) return;
    if (row.y < element.scrollTop) element.scrollTop = row.y - 44;
    else if (row.y + row.height > element.scrollTop + room.height)
      element.scrollTop = row.y + row.height - room.height + 8;
  };
  const moveTo = (at: number, extend: boolean) => {
    const entry = entries[at];
    if (!entry) return;
    if (extend) select(entries.slice(Math.min(at, focusIndex), Math.max(at, focusIndex) + 1), true);
    show(at);
    useGallery.setState({ focus: entry[0] });
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const entry = entries[focusIndex];
    if (!entry || event.altKey || (event.repeat && event.key === 'Delete')) return;
    const [id, , , , starred] = entry;
    const ids = selected.size > 0 ? [...selected] : [id];
    const isMod = event.ctrlKey || event.metaKey;
    const rowsOfPage = Math.max(1, Math.floor(room.height / (wished + 20)));
    const to = isMod ? focusIndex : walk(laid, focusIndex, event.key, rowsOfPage);
    if (to !== focusIndex) moveTo(to, event.shiftKey);
    else if (event.key === 'Enter') go(`/gallery/${id}`);
    else if (event.key === ' ') select([entry], !selected.has(id));
    else if (event.key === 'a' && isMod) select(entries, true);
    else if (event.key === 'f' && !isMod) void star(ids, starred === 0);
    else if (event.key === 'Delete') void trash(ids);
    else if (event.key === 'Escape') useGallery.setState({ selected: new Set() });
    else return;
    event.preventDefault();
  };

  // Back from a picture: where one was.
  const isBack = useRef(focus !== null);
  useEffect(() => {
    if (!isBack.current || room.width === 0) return;
    isBack.current = false;
    show(focusIndex);
    document.getElementById(`picture-${focus}`)?.focus({ preventScroll: true });
  }, [room.width]);

  const seen = visible(laid, top - BEYOND, top + room.height + BEYOND);
  const own = laid.rowOf[focusIndex] ?? 0;
  const rows = laid.rows.slice(seen.from, seen.to).map((row, i) => ({ row, at: seen.from + i }));
  // The one that has the focus stays, wherever one scrolls.
  if (room.width > 0 && (own < seen.from || own >= seen.to)) rows.push({ row: laid.rows[own] as Row, at: own });
  return (
    <div className="shelf">
      <div
        ref={scroller}
        className="scroller"
        onScroll={({ currentTarget }) => {
          setTop(currentTarget.scrollTop);
          useGallery.setState({ scrollTop: currentTarget.scrollTop });
        }}
      >
        <div
          role="grid"
          aria-label="Pictures"
          aria-rowcount={laid.rows.length}
          aria-multiselectable="true"
          className="grid"
          style={{ height: laid.height }}
          onKeyDown={onKeyDown}
          onFocus={() => {
            isOurs.current = true;
          }}
          onBlur={() => {
            isOurs.current = false;
          }}
        >
          {rows.map(({ row, at }) =>
            row.kind === 'day' ? (
              <div
                key={at}
                role="row"
                aria-rowindex={at + 1}
                className="day"
                style={{ top: row.y, height: row.height }}
              >
                <div role="rowheader">{row.day}</div>
              </div>
            ) : (
              <div
                key={at}
                role="row"
                aria-rowindex={at + 1}
                className="line"
                style={{ top: row.y, height: row.height }}
              >
                {row.cells.map(({ index: i, x, width }) => (
                  <Cell
                    key={(entries[i] as Entry)[0]}
                    entry={entries[i] as Entry}
                    x={x}
                    width={width}
                    height={row.height}
                    isFocus={i === focusIndex}
                    isSelected={selected.has((entries[i] as Entry)[0])}
                  />
                ))}
              </div>
            ),
          )}
        </div>
      </div>
      <Days laid={laid} onDay={(y) => scroller.current?.scrollTo({ top: y })} />
    </div>
  );
}

interface CellProps {
  entry: Entry;
  x: number;
  width: number;
  height: number;
  isFocus: boolean;
  isSelected: boolean;
}

function Cell({ entry: [id, w, h, atMs, starred], x, width, height, isFocus, isSelected }: CellProps) {
  const size = Math.max(width, height) * window.devicePixelRatio > 300 ? 512 : 256;
  const onClick = (event: MouseEvent) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || useGallery.getState().selected.size > 0) {
      event.preventDefault();
      const { selected } = useGallery.getState();
      select([[id, w, h, atMs, starred]], !selected.has(id));
      useGallery.setState({ focus: id });
      return;
    }
    event.preventDefault();
    useGallery.setState({ focus: id });
    go(`/gallery/${id}`);
  };
  return (
    <div role="gridcell" aria-selected={isSelected} className="cell" style={{ left: x, width, height }}>
      <a
        id={`picture-${id}`}
        href={`gallery/${id}`}
        tabIndex={isFocus ? 0 : -1}
        aria-label={`Picture of ${clock(atMs)}, ${w}×${h}${starred ? ', starred' : ''}`}
        onClick={onClick}
        onFocus={() => useGallery.setState({ focus: id })}
      >
        <img
          src={`${ROOT}api/v1/images/${id}/thumbnail?size=${size}`}
          alt=""
          width={w}
          height={h}
          loading="lazy"
          decoding="async"
        />
        {starred === 1 && (
          <span className="mark">
            <Icon name="star" filled />
          </span>
        )}
      </a>
    </div>
  );
}

/** The way to a day, beside the scrollbar. */
function Days({ laid, onDay }: { laid: Layout; onDay(y: number): void }) {
  const days = laid.rows.filter((row) => row.kind === 'day');
  const most = 14;
  const shown = days.length <= most ? days : days.filter((_, i) => i % Math.ceil(days.length / most) === 0);
  if (days.length < 2) return null;
  return (
    <nav className="days" aria-label="Days">
      {shown.map(({ day, y }) => (
        <button key={day} type="button" onClick={() => onDay(y)}>
          {day}
        </button>
      ))}
    </nav>
  );
}

function select(entries: readonly Entry[], isSelected: boolean): void {
  useGallery.setState(({ selected }) => {
    const next = new Set(selected);
    for (const [id] of entries) {
      if (isSelected) next.add(id);
      else next.delete(id);
    }
    return { selected: next };
  });
}

const FORMAT = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', year: 'numeric' });
const DAYS = new Map<number, string>();

/** Formatting a date is slow, and there are ten thousand of a few days. */
function dayOf(atMs: number): string {
  const date = new Date(atMs);
  const key = (date.getFullYear() * 12 + date.getMonth()) * 32 + date.getDate();
  const known = DAYS.get(key);
  if (known !== undefined) return known;
  const day = FORMAT.format(date);
  DAYS.set(key, day);
  return day;
}
