import { harmless } from '@qwen-supervisor/protocol/harmless-text';
import { expect, test } from 'vitest';

test('what a terminal would obey is shown, what people write is left', () => {
  const hostile = '\x1b]0;OWNED\x07 \x1b[2J \x9b31m \r over \u202e txt \u2066 \u2028 \x7f \ufeff';
  const shown = harmless(hostile);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these must not be there
  expect(shown).not.toMatch(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/);
  expect(shown).toContain('\\u001b]0;OWNED\\u0007');
  const text = 'a fox 🦊 on «teal», 狐狸\n\tnext: ação 👩‍👩‍👧';
  expect(harmless(text)).toBe(text);
});

test('a line of JSON stays one, and means the same', () => {
  const value = { prompt: '\x1b[31m \u009b \u202e "quoted"' };
  expect(JSON.parse(harmless(JSON.stringify(value)))).toEqual(value);
});
