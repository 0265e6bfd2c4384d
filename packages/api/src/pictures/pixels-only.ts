/**
 * A picture's file, reduced to what makes its pixels: what else a file may carry (texts, previews, further frames, data
 * that unpacks to gigabytes) never reaches the decoder. Walks the container, decodes nothing.
 *
 * References: PNG (third edition) 5.3; JPEG (ITU-T T.81) B.1.1; WebP container specification; GIF89a.
 */
import { CodedError } from '@qwen-supervisor/protocol/errors';

/** Chunks of a file, whatever they are called in its format. */
const CHUNKS_MAX = 65_536;
/** Bytes of a colour profile that is kept, as it lies in the file: those of cameras and screens are a few KiB. */
const PROFILE_MAX = 64 << 10;
/** In a PNG it is packed, a thousandfold at most. */
const PACKED_PROFILE_MAX = 8 << 10;
/** Passes over the whole picture: a progressive JPEG has about ten. */
const SCANS_MAX = 100;

export type Format = 'png' | 'jpeg' | 'webp' | 'gif';

export interface PixelsOnly {
  format: Format;
  bytes: Buffer;
  /** As EXIF counts them, 1 to 8: how the picture lies in the file. */
  orientation: number;
}

/** @throws CodedError UPLOAD_INVALID for what is none of the formats, or is damaged */
export function pixelsOnly(file: Buffer): PixelsOnly {
  try {
    for (const [format, isOne, reduce] of FORMATS) if (isOne(file)) return { format, ...reduce(file) };
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new CodedError('UPLOAD_INVALID', 'the picture is cut off', { cause });
  }
  throw new CodedError('UPLOAD_INVALID', 'not a PNG, JPEG, WebP or GIF');
}

type Reduced = Omit<PixelsOnly, 'format'>;

const PNG_SIGNATURE = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1');
/** Colour space without a profile, palette and transparency among them. */
const PNG_KEPT = new Set(['IHDR', 'PLTE', 'tRNS', 'IDAT', 'IEND', 'gAMA', 'cHRM', 'sRGB', 'cICP']);

function reducePng(file: Buffer): Reduced {
  const kept = new Chunks();
  kept.push(PNG_SIGNATURE);
  let orientation = 1;
  for (let at = PNG_SIGNATURE.length; at < file.length; ) {
    const length = file.readUInt32BE(at);
    const type = file.toString('latin1', at + 4, at + 8);
    const end = at + 12 + length;
    if (end > file.length) throw new RangeError(type);
    if (type === 'eXIf' && length <= PROFILE_MAX) orientation = orientationOf(file.subarray(at + 8, end - 4));
    if (PNG_KEPT.has(type) || (type === 'iCCP' && length <= PACKED_PROFILE_MAX)) kept.push(file.subarray(at, end));
    else kept.skip();
    if (type === 'IEND') break;
    at = end;
  }
  return { bytes: kept.concat(), orientation };
}

const [SOI, EOI, SOS, APP0, APP1, APP2, APP14, APP15, COM] = [
  0xd8, 0xd9, 0xda, 0xe0, 0xe1, 0xe2, 0xee, 0xef, 0xfe,
] as const;

function reduceJpeg(file: Buffer): Reduced {
  const kept = new Chunks();
  kept.push(file.subarray(0, 2));
  let [orientation, scans] = [1, 0];
  for (let at = 2; at < file.length; ) {
    if (file[at] !== 0xff) throw new CodedError('UPLOAD_INVALID', 'the JPEG is damaged');
    const marker = file[at + 1];
    if (marker === 0xff) {
      at++;
      continue;
    }
    if (marker === EOI) break;
    let end = at + 2 + file.readUInt16BE(at + 2);
    if (end > file.length) throw new RangeError('segment');
    const content = file.subarray(at + 4, end);
    if (marker === SOS) {
      if (++scans > SCANS_MAX)
        throw new CodedError('UPLOAD_INVALID', `the JPEG has more than ${SCANS_MAX} passes over its pixels`);
      end = endOfScan(file, end);
    }
    if (marker === APP1 && startsWith(content, 'Exif\0\0')) orientation = orientationOf(content.subarray(6));
    const isProfile = marker === APP2 && startsWith(content, 'ICC_PROFILE\0\x01\x01');
    const isAncillary = marker === COM || ((marker ?? 0) >= APP0 && (marker ?? 0) <= APP15);
    // JFIF and Adobe's segment say how the colours are stored. Previews are in further segments of the first kind.
    const isKept = !isAncillary || (marker === APP0 && startsWith(content, 'JFIF\0') && content.length <= 14);
    if (isKept || isProfile || (marker === APP14 && content.length <= 12)) kept.push(file.subarray(at, end));
    else kept.skip();
    at = end;
  }
  kept.push(Buffer.from([0xff, EOI]));
  return { bytes: kept.concat(), orientation };
}

/** Where the next marker stands: within a scan 0xff is followed by 0, or by the number of a restart. */
function endOfScan(file: Buffer, start: number): number {
  for (let at = file.indexOf(0xff, start); at >= 0; at = file.indexOf(0xff, at + 1)) {
    const next = file[at + 1];
    if (next !== undefined && next !== 0 && next !== 0xff && (next < 0xd0 || next > 0xd7)) return at;
  }
  return file.length;
}

/** Bits of the first byte of VP8X that tell of what follows. */
const [WITH_PROFILE, WITH_ALPHA] = [0x20, 0x10];

function reduceWebp(file: Buffer): Reduced {
  const kept = new Chunks();
  let [orientation, flags] = [1, 0];
  let header: Buffer | null = null;
  let hasPixels = false;
  const take = (chunk: Buffer) => kept.push(chunk);
  for (const { type, content, chunk } of riffChunks(file, 12)) {
    if (type === 'VP8X') header = Buffer.from(chunk);
    else if (type === 'EXIF') {
      const exif = startsWith(content, 'Exif\0\0') ? content.subarray(6) : content;
      if (content.length <= PROFILE_MAX) orientation = orientationOf(exif);
    } else if (type === 'ICCP' && content.length <= PROFILE_MAX && !hasPixels) {
      flags |= WITH_PROFILE;
      take(chunk);
    } else if (hasPixels) kept.skip();
    else if (type === 'ALPH' || type === 'VP8 ' || type === 'VP8L') {
      if (type === 'ALPH') flags |= WITH_ALPHA;
      hasPixels = type !== 'ALPH';
      take(chunk);
    } else if (type === 'ANMF') {
      // The first frame is a picture of its own; its size stands where the canvas has it.
      header = Buffer.alloc(18);
      header.write('VP8X', 'latin1');
      header.writeUInt32LE(10, 4);
      content.copy(header, 12, 6, 12);
      for (const inner of riffChunks(content, 16)) {
        if (inner.type === 'ALPH') flags |= WITH_ALPHA;
        if (/^(ALPH|VP8 |VP8L)$/.test(inner.type)) take(inner.chunk);
        if (inner.type === 'VP8L') flags |= WITH_ALPHA;
      }
      hasPixels = true;
    } else kept.skip();
  }
  if (header) {
    // A lossless picture knows of its transparency itself; that it may have some does no harm.
    if (kept.some((chunk) => startsWith(chunk, 'VP8L'))) flags |= WITH_ALPHA;
    header[8] = flags;
    kept.unshift(header);
  }
  const body = kept.concat();
  const riff = Buffer.from('RIFF\0\0\0\0WEBP', 'latin1');
  riff.writeUInt32LE(body.length + 4, 4);
  return { bytes: Buffer.concat([riff, body]), orientation };
}

function* riffChunks(file: Buffer, start: number): Generator<{ type: string; content: Buffer; chunk: Buffer }> {
  let count = 0;
  for (let at = start; at + 8 <= file.length; ) {
    if (++count > CHUNKS_MAX) throw tooManyPieces();
    const length = file.readUInt32LE(at + 4);
    const end = at + 8 + length + (length % 2);
    // Some writers leave out the last byte of padding.
    if (at + 8 + length > file.length) throw new RangeError('chunk');
    const type = file.toString('latin1', at, at + 4);
    yield { type, content: file.subarray(at + 8, at + 8 + length), chunk: file.subarray(at, end) };
    at = end;
  }
}

const [EXTENSION, IMAGE, TRAILER, GRAPHIC_CONTROL] = [0x21, 0x2c, 0x3b, 0xf9] as const;

/** The first picture of it, with its transparency. */
function reduceGif(file: Buffer): Reduced {
  const kept = new Chunks();
  const colours = (flags: number) => (flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0);
  let at = 13 + colours(file.readUInt8(10));
  kept.push(file.subarray(0, at));
  for (;;) {
    const kind = file.readUInt8(at);
    if (kind === EXTENSION) {
      const end = endOfBlocks(file, at + 2);
      if (file.readUInt8(at + 1) === GRAPHIC_CONTROL && end - at <= 8) kept.push(file.subarray(at, end));
      else kept.skip();
      at = end;
    } else if (kind === IMAGE) {
      const end = endOfBlocks(file, at + 10 + colours(file.readUInt8(at + 9)) + 1);
      kept.push(file.subarray(at, end));
      kept.push(Buffer.from([TRAILER]));
      return { bytes: kept.concat(), orientation: 1 };
    } else throw new CodedError('UPLOAD_INVALID', 'the GIF has no picture in it');
  }
}

/** Blocks, each with its length before it, until one of none. */
function endOfBlocks(file: Buffer, start: number): number {
  let at = start;
  for (;;) {
    const length = file.readUInt8(at);
    at += 1 + length;
    if (length === 0) return at;
  }
}

/** What is kept of a file, and how many chunks were looked at. */
class Chunks {
  readonly #kept: Buffer[] = [];
  #count = 0;

  push(chunk: Buffer): void {
    this.skip();
    this.#kept.push(chunk);
  }

  unshift(chunk: Buffer): void {
    this.#kept.unshift(chunk);
  }

  some(is: (chunk: Buffer) => boolean): boolean {
    return this.#kept.some(is);
  }

  skip(): void {
    if (++this.#count > CHUNKS_MAX) throw tooManyPieces();
  }

  concat(): Buffer {
    return Buffer.concat(this.#kept);
  }
}

function tooManyPieces(): CodedError {
  return new CodedError('UPLOAD_INVALID', 'the picture is in more pieces than a picture has');
}

const ORIENTATION_TAG = 0x0112;
/** Entries of the first directory that are looked at. */
const ENTRIES_MAX = 200;

/** From EXIF data (a TIFF file); 1 where it does not say. */
function orientationOf(tiff: Buffer): number {
  const isLittle = startsWith(tiff, 'II');
  if (tiff.length < 14 || (!isLittle && !startsWith(tiff, 'MM'))) return 1;
  const word = (at: number) => (at + 2 > tiff.length ? 0 : isLittle ? tiff.readUInt16LE(at) : tiff.readUInt16BE(at));
  const directory = isLittle ? tiff.readUInt32LE(4) : tiff.readUInt32BE(4);
  for (let i = 0; i < Math.min(word(directory), ENTRIES_MAX); i++) {
    const entry = directory + 2 + 12 * i;
    if (word(entry) !== ORIENTATION_TAG) continue;
    const value = word(entry + 8);
    return value >= 1 && value <= 8 ? value : 1;
  }
  return 1;
}

function startsWith(bytes: Buffer, text: string): boolean {
  return bytes.toString('latin1', 0, text.length) === text;
}

const FORMATS: [Format, (file: Buffer) => boolean, (file: Buffer) => Reduced][] = [
  ['png', (file) => file.subarray(0, 8).equals(PNG_SIGNATURE), reducePng],
  ['jpeg', (file) => file[0] === 0xff && file[1] === SOI && file[2] === 0xff, reduceJpeg],
  ['webp', (file) => startsWith(file, 'RIFF') && file.toString('latin1', 8, 12) === 'WEBP', reduceWebp],
  ['gif', (file) => startsWith(file, 'GIF87a') || startsWith(file, 'GIF89a'), reduceGif],
];
