import { addPngTexts, readPngTexts } from '@qwen-supervisor/protocol/png-text';
import fc from 'fast-check';
import sharp from 'sharp';
import { expect, test } from 'vitest';

const png = await sharp({ create: { width: 4, height: 4, channels: 3, background: 'teal' } })
  .png()
  .toBuffer();

test('texts come back as they were put in, whatever they are, and the picture stays the same', async () => {
  const pixels = await sharp(png).raw().toBuffer();
  const text = fc.string({ unit: 'binary' }).filter((one) => !one.includes('\0'));
  await fc.assert(
    fc.asyncProperty(text, text, async (first, second) => {
      const file = addPngTexts(png, { parameters: first, other: second });
      expect(readPngTexts(file)).toEqual({ parameters: first, other: second });
      expect(await sharp(file).raw().toBuffer(), 'and every checksum is right').toEqual(pixels);
    }),
  );
});

test('Latin-1 is written as other tools write it, anything else as UTF-8', () => {
  const has = (text: string, chunk: string) => Buffer.from(addPngTexts(png, { parameters: text })).includes(chunk);
  expect([has('naïve café', 'tEXtparameters'), has('你好', 'iTXtparameters')]).toEqual([true, true]);
});

test('what is no PNG, or only the beginning of one, has no texts and does no harm', () => {
  const file = addPngTexts(png, { parameters: 'a fox' });
  expect(readPngTexts(new Uint8Array())).toEqual({});
  expect(readPngTexts(Buffer.from('GIF89a'))).toEqual({});
  fc.assert(
    fc.property(fc.integer({ min: 0, max: file.length - 1 }), fc.integer({ min: 0, max: 255 }), (at, byte) => {
      const broken = Uint8Array.from(file);
      broken[at] = byte;
      expect(() => [readPngTexts(broken), readPngTexts(file.subarray(0, at))]).not.toThrow();
    }),
  );
});

test('texts are read up to a bound, however large the file is and however many there are', () => {
  const long = addPngTexts(png, { parameters: 'a'.repeat(300 << 10), b: 'short' });
  expect(readPngTexts(long)).toEqual({ b: 'short' });
  const many = Object.fromEntries(Array.from({ length: 20_000 }, (_, i) => [`k${i}`, 'v']));
  expect(Object.keys(readPngTexts(addPngTexts(png, many))).length).toBeLessThanOrEqual(10_000);
});
