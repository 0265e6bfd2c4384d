import { cut } from '@qwen-supervisor/supervisor/cli/status-lines';
import { expect, test } from 'vitest';

test.each([
  ['short', 10, 'short'],
  ['exactly ten', 11, 'exactly ten'],
  ['longer than that', 10, 'longer th…'],
  ['猫猫猫猫猫', 10, '猫猫猫猫猫'],
  ['猫猫猫猫猫猫', 10, '猫猫猫猫…'],
  ['two\nlines\tand', 20, 'two lines and'],
  ['x', 0, '…'],
])('%j in %d columns is %j', (text, columns, shown) => {
  expect(cut(text, columns)).toBe(shown);
});

test('what would move the cursor is shown, and counted as it is shown', () => {
  const shown = cut(`\x1b[2Jx${'y'.repeat(30)}`, 12);
  expect(shown).not.toContain('\x1b');
  expect([...shown].length).toBeLessThanOrEqual(12);
});
