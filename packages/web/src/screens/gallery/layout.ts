/**
 * Where pictures lie in the gallery: rows of equal height, uncropped, in the order in which they were made, under the
 * day they were made on. Pure.
 */

/** id, width, height, when it was made (milliseconds since 1970), 1 if starred. */
export type Entry = readonly [id: string, width: number, height: number, atMs: number, starred: 0 | 1];

export interface Cell {
  /** Of the entry. */
  index: number;
  x: number;
  width: number;
}

export type Row =
  | { kind: 'day'; y: number; height: number; day: string; atMs: number }
  | { kind: 'pictures'; y: number; height: number; cells: readonly Cell[] };

export interface Layout {
  rows: readonly Row[];
  height: number;
  /** By the index of an entry: its row. */
  rowOf: readonly number[];
}

export const GAP = 6;
const DAY_HEIGHT = 44;
/** A row is no flatter than this part of what is wished: very wide pictures lie alone. */
const FLATTEST = 0.4;

/** @param wished height of a row, pixels; a full one is a little lower or higher */
export function layout(
  entries: readonly Entry[],
  width: number,
  wished: number,
  dayOf: (atMs: number) => string,
): Layout {
  const rows: Row[] = [];
  const rowOf: number[] = [];
  let y = 0;
  let day: string | null = null;
  let line: number[] = [];
  let ratios = 0;
  const close = (isLast: boolean) => {
    if (line.length === 0) return;
    const room = width - GAP * (line.length - 1);
    const full = room / ratios;
    const height = Math.round(Math.max(FLATTEST * wished, isLast ? Math.min(wished, full) : full));
    let x = 0;
    const cells = line.map((index) => {
      const cell = { index, x, width: ratioOf(entries[index] as Entry) * Math.min(height, full) };
      x += cell.width + GAP;
      return cell;
    });
    for (const index of line) rowOf[index] = rows.length;
    rows.push({ kind: 'pictures', y, height, cells });
    y += height + GAP;
    line = [];
    ratios = 0;
  };
  for (const [index, entry] of entries.entries()) {
    const made = dayOf(entry[3]);
    if (made !== day) {
      close(true);
      day = made;
      rows.push({ kind: 'day', y, height: DAY_HEIGHT, day, atMs: entry[3] });
      y += DAY_HEIGHT;
    }
    line.push(index);
    ratios += ratioOf(entry);
    if ((width - GAP * (line.length - 1)) / ratios <= wished) close(false);
  }
  close(true);
  return { rows, height: y, rowOf };
}

function ratioOf([, width, height]: Entry): number {
  return width / height;
}

/** Indices of the rows between two heights: from the first, to before the last. */
export function visible({ rows }: Layout, top: number, bottom: number): { from: number; to: number } {
  let [low, high] = [0, rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    const row = rows[middle] as Row;
    if (row.y + row.height < top) low = middle + 1;
    else high = middle;
  }
  let to = low;
  while (to < rows.length && (rows[to] as Row).y <= bottom) to++;
  return { from: low, to };
}

/** Where a key leads from a picture; the same where it leads nowhere. `rows` of a page: for PageUp and PageDown. */
export function walk({ rows, rowOf }: Layout, from: number, key: string, rowsOfPage: number): number {
  const last = rowOf.length - 1;
  const within = (index: number) => Math.max(0, Math.min(last, index));
  switch (key) {
    case 'ArrowLeft':
      return within(from - 1);
    case 'ArrowRight':
      return within(from + 1);
    case 'Home':
      return 0;
    case 'End':
      return last;
    case 'ArrowUp':
      return vertical(-1);
    case 'ArrowDown':
      return vertical(1);
    case 'PageUp':
      return vertical(-rowsOfPage);
    case 'PageDown':
      return vertical(rowsOfPage);
    default:
      return from;
  }

  function vertical(by: number): number {
    const own = rows[rowOf[from] as number];
    const cell = own?.kind === 'pictures' ? own.cells.find(({ index }) => index === from) : undefined;
    if (!cell) return from;
    const middle = cell.x + cell.width / 2;
    let at = rowOf[from] as number;
    let found = from;
    for (let left = Math.abs(by); left > 0; ) {
      at += Math.sign(by);
      const row = rows[at];
      if (!row) break;
      if (row.kind === 'day') continue;
      left--;
      const nearest = [...row.cells].sort((a, b) => distance(a) - distance(b))[0];
      if (nearest) found = nearest.index;
    }
    return found;

    function distance({ x, width }: Cell): number {
      return Math.abs(x + width / 2 - middle);
    }
  }
}
