import { parseJson, TEXT_MAX } from '@qwen-supervisor/api/bodies/json-body';
import { expect, test } from 'vitest';

const parse = (text: string) => parseJson(Buffer.from(text));
const coded = (code: string) => expect.objectContaining({ code });
const PICTURE = 'A'.repeat(8 << 20);

test('what is short is plain JSON, a byte order mark before it or not', () => {
  expect(parse('{"a": [1, "x\\"y"]}')).toEqual({ a: [1, 'x"y'] });
  expect(parse('\ufeff{"a": 1}')).toEqual({ a: 1 });
  expect(parse('')).toBeUndefined();
});

test('a picture may be as large as it likes, wherever it stands and however it is escaped', () => {
  const escaped = PICTURE.replaceAll('AAAAAAAA', 'AAAAAAA\\/');
  const body = parse(
    `{"init_images": ["${escaped}", "${PICTURE}"], "prompt": "a \\"fox\\"", "deep": {"mask": "${PICTURE}"}}`,
  );
  expect(body).toEqual({
    init_images: [PICTURE.replaceAll('AAAAAAAA', 'AAAAAAA/'), PICTURE],
    prompt: 'a "fox"',
    deep: { mask: PICTURE },
  });
});

test.each([
  ['numbers', `{"a": [${'1,'.repeat(TEXT_MAX / 2)}1]}`],
  ['short strings', `{"a": [${'"",'.repeat(TEXT_MAX / 3)}""], "image": "${PICTURE}"}`],
  ['a text with quotes in it', `{"a": "${'\\"'.repeat(TEXT_MAX)}"}`],
  ['space', `{"a": 1${' '.repeat(TEXT_MAX)}}`],
])('what is no picture is bounded: %s', (_what, text) => {
  expect(() => parse(text)).toThrow(coded('BODY_TOO_LARGE'));
});

test('what is nested deeper than any request is refused before anything walks it', () => {
  expect(() => parse(`${'['.repeat(100)}${']'.repeat(100)}`)).toThrow(coded('BODY_INVALID'));
  expect(() => parse('{"a":'.repeat(200_000))).toThrow(coded('BODY_INVALID'));
});

test('what is not JSON is said to be none', () => {
  for (const text of ['{', '"', '{"a": }', 'prompt=x', '{"a": "\\u12"}'])
    expect(() => parse(text)).toThrow(coded('BODY_INVALID'));
});

test('a seed keeps its digits, and nothing that only looks like one is changed', () => {
  expect(parse('{"seed": 6687881544318117707}')).toEqual({ seed: '6687881544318117707' });
  expect(parse('{"prompt": "\\"seed\\": 6687881544318117707 }"}')).toEqual({ prompt: '"seed": 6687881544318117707 }' });
  expect(parse('{"seed": 7}')).toEqual({ seed: 7 });
});
