/** Files as cameras, editors and attackers make them. Decoded by sharp, which is what reads them afterwards. */
import { deflateSync } from 'node:zlib';
import { pixelsOnly } from '@qwen-supervisor/api/pictures/pixels-only';
import sharp from 'sharp';
import { expect, test } from 'vitest';

const coded = (code: string) => expect.objectContaining({ code });
const SECRET = 'a secret that must not get any further';
const RAW = { raw: { width: 32, height: 24, channels: 4 as const } };
const noise = Buffer.from(Array.from({ length: 32 * 24 * 4 }, (_, i) => (i * 7919) % 251));

function make(format: 'png' | 'jpeg' | 'webp' | 'gif', orientation = 1): Promise<Buffer> {
  return sharp(noise, RAW)
    .withMetadata({ orientation })
    .withExifMerge({ IFD0: { Copyright: SECRET } })
    .toFormat(format, { lossless: true })
    .toBuffer();
}

function chunk(type: string, data: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(data.length);
  head.write(type, 4, 'latin1');
  // Nobody reads the checksum of what is dropped.
  return Buffer.concat([head, data, Buffer.alloc(4)]);
}

/** Behind the header of a PNG. */
const insert = (png: Buffer, ...chunks: Buffer[]) => Buffer.concat([png.subarray(0, 33), ...chunks, png.subarray(33)]);
const pixels = (file: Buffer) => sharp(file).ensureAlpha().raw().toBuffer();

test.each(['png', 'jpeg', 'webp', 'gif'] as const)('of a %s nothing but the pixels is left', async (format) => {
  const file = await make(format, 6);
  const reduced = pixelsOnly(file);
  expect(reduced).toMatchObject({ format, orientation: format === 'gif' ? 1 : 6 });
  expect(reduced.bytes.includes(SECRET)).toBe(false);
  expect(await pixels(reduced.bytes)).toEqual(await pixels(file));
  const { width, height, exif, orientation } = await sharp(reduced.bytes).metadata();
  expect([width, height, exif, orientation]).toEqual([32, 24, undefined, undefined]);
});

test('texts that unpack to gigabytes are not unpacked', async () => {
  const bomb = chunk('zTXt', Buffer.concat([Buffer.from('a\0\0'), deflateSync(Buffer.alloc(8 << 20))]));
  const file = insert(await make('png'), ...Array.from({ length: 300 }, () => bomb));
  const { bytes } = pixelsOnly(file);
  expect(bytes.includes('zTXt')).toBe(false);
  expect(await pixels(bytes)).toEqual(await pixels(await make('png')));
});

test('a small colour profile goes along, a large one does not', async () => {
  const tagged = await sharp(noise, RAW).withIccProfile('p3').png().toBuffer();
  expect((await sharp(pixelsOnly(tagged).bytes).metadata()).hasProfile).toBe(true);
  const jpeg = await sharp(noise, RAW).withIccProfile('p3').jpeg().toBuffer();
  expect((await sharp(pixelsOnly(jpeg).bytes).metadata()).hasProfile).toBe(true);
  const large = insert(
    await sharp(noise, RAW).png().toBuffer(),
    chunk('iCCP', Buffer.concat([Buffer.from('a\0\0'), Buffer.alloc(9000)])),
  );
  expect(pixelsOnly(large).bytes.includes('iCCP')).toBe(false);
});

test('of a picture that moves the first frame is taken', async () => {
  const frames = await Promise.all(
    ['red', 'blue'].map((background) =>
      sharp({ create: { width: 16, height: 16, channels: 4, background } })
        .png()
        .toBuffer(),
    ),
  );
  for (const format of ['gif', 'webp'] as const) {
    const moving = await sharp(frames, { join: { animated: true } })
      .toFormat(format)
      .toBuffer();
    expect((await sharp(moving).metadata()).pages).toBe(2);
    const { bytes } = pixelsOnly(moving);
    expect((await sharp(bytes).metadata()).pages ?? 1).toBe(1);
    expect([...(await pixels(bytes)).subarray(0, 3)].map((value) => value > 200)).toEqual([true, false, false]);
  }
});

test('a picture in a million pieces, or one with a thousand passes, is refused', async () => {
  const pieces = insert(
    await make('png'),
    Buffer.concat(Array.from({ length: 70_000 }, () => chunk('tEXt', Buffer.alloc(0)))),
  );
  expect(() => pixelsOnly(pieces)).toThrow(coded('UPLOAD_INVALID'));
  const riff = (type: string, count: number) =>
    Buffer.concat([
      Buffer.from('RIFF\0\0\0\0WEBP'),
      ...Array.from({ length: count }, () => Buffer.from(`${type}\0\0\0\0`)),
    ]);
  for (const type of ['EXIF', 'VP8X', 'XXXX'])
    expect(() => pixelsOnly(riff(type, 70_000))).toThrow(coded('UPLOAD_INVALID'));
  const jpeg = await make('jpeg');
  const scan = Buffer.from([0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0, 0x55, 0x55]);
  const passes = Buffer.concat([jpeg.subarray(0, -2), ...Array.from({ length: 200 }, () => scan), jpeg.subarray(-2)]);
  expect(() => pixelsOnly(passes)).toThrow(coded('UPLOAD_INVALID'));
});

test('a file that is cut off anywhere is refused or decodes to nothing that was not in it', async () => {
  for (const format of ['png', 'jpeg', 'webp', 'gif'] as const) {
    const file = await make(format);
    for (let length = 0; length < file.length; length += 7) {
      try {
        await sharp(pixelsOnly(file.subarray(0, length)).bytes, { failOn: 'error' })
          .raw()
          .toBuffer();
      } catch (error) {
        expect((error as Error).message).toMatch(/cut off|damaged|not a PNG|no picture|Input|VipsJpeg|png|gif|webp/i);
      }
    }
  }
});

test('what is no picture is none', () => {
  for (const text of ['', 'GIF', '<svg/>', '%PDF-1.4', 'RIFF1234WAVE', '\xff\xd8'])
    expect(() => pixelsOnly(Buffer.from(text, 'latin1'))).toThrow(coded('UPLOAD_INVALID'));
});
