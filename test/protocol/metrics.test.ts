import { Counter, gauge, Histogram } from '@qwen-supervisor/protocol/metrics';
import { expect, test } from 'vitest';

test('a histogram counts each value in every bucket that it fits into', () => {
  const histogram = new Histogram('wait_seconds', 'Waiting.', [1, 5]);
  for (const value of [0.5, 1, 3, 9]) histogram.observe({ route: '/' }, value);
  expect(histogram.text()).toBe(
    [
      '# HELP wait_seconds Waiting.',
      '# TYPE wait_seconds histogram',
      'wait_seconds_bucket{route="/",le="1"} 2',
      'wait_seconds_bucket{route="/",le="5"} 3',
      'wait_seconds_bucket{route="/",le="+Inf"} 4',
      'wait_seconds_sum{route="/"} 13.5',
      'wait_seconds_count{route="/"} 4',
      '',
    ].join('\n'),
  );
});

test('a counter counts by its labels, which may hold anything', () => {
  const counter = new Counter('exits_total', 'Exits.');
  for (const cause of ['a', 'b', 'a']) counter.add({ cause });
  counter.add({ cause: 'a "quoted\\\nline' });
  expect(counter.text().split('\n').slice(2, -1)).toEqual([
    'exits_total{cause="a"} 2',
    'exits_total{cause="b"} 1',
    'exits_total{cause="a \\"quoted\\\\\\nline"} 1',
  ]);
});

test('a gauge without labels has no braces', () => {
  expect(gauge('load_seconds', 'Load.', [[{}, 1.5]])).toContain('\nload_seconds 1.5\n');
});
