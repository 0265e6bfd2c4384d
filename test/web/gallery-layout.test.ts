/** Where pictures lie, and where keys lead. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Entry, GAP, layout, visible, walk } from '../../packages/web/src/screens/gallery/layout';

const DAY_MS = 86_400_000;
const dayOf = (atMs: number) => String(Math.floor(atMs / DAY_MS));
const entry = fc
  .tuple(fc.integer({ min: 16, max: 4096 }), fc.integer({ min: 16, max: 4096 }), fc.nat(5))
  .map(([width, height, day]): Entry => ['', width, height, (10 - day) * DAY_MS, 0]);
const entries = fc
  .array(entry, { minLength: 1, maxLength: 80 })
  .map((list) => list.toSorted((a, b) => b[3] - a[3]).map((one, i): Entry => [`p${i}`, one[1], one[2], one[3], 0]));
const room = fc.integer({ min: 320, max: 3840 });

test('every picture is there once, in its order, uncut and without overlap, at any width', () => {
  fc.assert(
    fc.property(entries, room, (list, width) => {
      const { rows, rowOf, height } = layout(list, width, 190, dayOf);
      const seen: number[] = [];
      let y = 0;
      for (const [at, row] of rows.entries()) {
        expect(row.y).toBeGreaterThanOrEqual(y);
        y = row.y + row.height;
        if (row.kind === 'day') continue;
        let x = 0;
        for (const cell of row.cells) {
          expect(rowOf[cell.index]).toBe(at);
          expect(cell.x).toBeGreaterThanOrEqual(x - 1e-6);
          x = cell.x + cell.width;
          seen.push(cell.index);
        }
        expect(x).toBeLessThanOrEqual(width + row.cells.length);
      }
      expect(seen).toEqual(list.map((_, i) => i));
      expect(height).toBeGreaterThanOrEqual(y);
    }),
  );
});

test('what is visible is found among all rows', () => {
  fc.assert(
    fc.property(entries, room, fc.nat(5000), (list, width, top) => {
      const laid = layout(list, width, 190, dayOf);
      const { from, to } = visible(laid, top, top + 800);
      const inSight = laid.rows
        .map((row, i) => ({ row, i }))
        .filter(({ row }) => row.y <= top + 800 && row.y + row.height >= top);
      expect(inSight.every(({ i }) => i >= from && i < to)).toBe(true);
      expect(to - from).toBeLessThanOrEqual(inSight.length);
    }),
  );
});

test('arrows lead left and right through all pictures, up and down to the nearest, and never out', () => {
  const square = (i: number): Entry => [`p${i}`, 100, 100, 0, 0];
  const laid = layout(
    Array.from({ length: 10 }, (_, i) => square(i)),
    4 * 100 + 3 * GAP,
    100,
    dayOf,
  );
  const go = (from: number, key: string) => walk(laid, from, key, 2);
  expect(['ArrowRight', 'ArrowLeft', 'ArrowDown', 'ArrowUp'].map((key) => go(5, key))).toEqual([6, 4, 9, 1]);
  expect([go(0, 'ArrowLeft'), go(0, 'ArrowUp'), go(9, 'ArrowRight'), go(9, 'ArrowDown')]).toEqual([0, 0, 9, 9]);
  expect([go(5, 'Home'), go(5, 'End'), go(0, 'PageDown'), go(8, 'PageUp'), go(5, 'x')]).toEqual([0, 9, 8, 0, 5]);
});

test('wherever keys lead is a picture', () => {
  const keys = fc.constantFrom('ArrowLeft', 'ArrowRight', 'ArrowUp', 'ArrowDown', 'Home', 'End', 'PageUp', 'PageDown');
  fc.assert(
    fc.property(entries, room, fc.array(keys, { maxLength: 30 }), (list, width, pressed) => {
      const laid = layout(list, width, 190, dayOf);
      const at = pressed.reduce((from, key) => walk(laid, from, key, 3), 0);
      expect(list[at]).toBeDefined();
    }),
  );
});
