/** What of the page can be judged without a browser. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { groupsOf } from '../../packages/web/src/screens/queue/groups';
import { addLines, textOf } from '../../packages/web/src/screens/system/log-lines';
import { REPOSITORY } from '../fixture-files';
import { job } from './samples';

test('neighbours that were sent together are a group, and one that is alone is none', () => {
  const queue = [
    job('a', { group: 'g' }),
    job('b', { group: 'g' }),
    job('c'),
    job('d', { group: 'g' }),
    job('e', { group: 'h' }),
  ];
  expect(groupsOf(queue).map(({ group, jobs }) => [group, jobs.map(({ id }) => id).join('')])).toEqual([
    ['g', 'ab'],
    [null, 'c'],
    [null, 'd'],
    [null, 'e'],
  ]);
});

test('lines of the log are text, whatever is in them, and the oldest give way', () => {
  const line = {
    level: 30,
    time: '',
    msg: '\u001b[31mred\u001b[0m <b>bold</b>\u0007',
    number: 0,
    step: 3,
    nothing: null,
  };
  expect(textOf(line)).toBe('red <b>bold</b>·  step=3');
  const many = addLines(
    [],
    Array.from({ length: 2500 }, () => ({ ...line })),
  );
  expect(many).toHaveLength(2000);
  expect((many.at(-1)?.number ?? 0) - (many[0]?.number ?? 0)).toBe(1999);
});

/** Relative luminance of a grey or a colour in oklch. Reference: CSS Color 4 (oklch to sRGB), WCAG 2.2 (luminance). */
function luminance(L: number, C: number, hue: number): number {
  const [a, b] = [C * Math.cos((hue * Math.PI) / 180), C * Math.sin((hue * Math.PI) / 180)];
  const [l, m, s] = [
    (L + 0.3963377774 * a + 0.2158037573 * b) ** 3,
    (L - 0.1055613458 * a - 0.0638541728 * b) ** 3,
    (L - 0.0894841775 * a - 1.291485548 * b) ** 3,
  ] as [number, number, number];
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((value) => Math.min(1, Math.max(0, value))) as [number, number, number];
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}

test('every text can be read on every ground, in light and in dark', () => {
  const css = readFileSync(join(REPOSITORY, 'packages/web/src/styles/tokens.css'), 'utf8');
  const colour = 'oklch\\(([\\d.]+) ([\\d.]+) ([\\d.]+)\\)';
  const tokens = new Map(
    [...css.matchAll(new RegExp(`--([\\w-]+): light-dark\\(${colour}, ${colour}\\)`, 'g'))].map(
      ([, name = '', ...numbers]) => [
        name,
        [numbers.slice(0, 3), numbers.slice(3)].map((part) =>
          luminance(...(part.map(Number) as [number, number, number])),
        ),
      ],
    ),
  );
  const contrast = (one: string, other: string, scheme: number) => {
    const [low = 0, high = 0] = [one, other]
      .map((name) => tokens.get(name)?.[scheme] ?? Number.NaN)
      .sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const pairs = ['text', 'muted', 'accent', 'ok', 'warn', 'bad'].flatMap((text) =>
    ['ground', 'surface', 'raised', 'stage'].map((ground) => [text, ground] as const),
  );
  const weak = [...pairs, ['on-accent', 'accent'] as const].flatMap(([text, ground]) =>
    [0, 1]
      .filter((scheme) => !(contrast(text, ground, scheme) >= 4.5))
      .map((scheme) => `${text} on ${ground}, ${['light', 'dark'][scheme]}`),
  );
  expect(weak).toEqual([]);
});
