/**
 * JSON from outside. Pictures come as base64 within it, so that a body may be large; everything else in it may not:
 * what is parsed, and so the time that it takes, is bounded by a constant. RFC 8259.
 */
import { CodedError } from '@qwen-supervisor/protocol/errors';

/** Bytes of a body without a picture, and of what is no picture in one with. */
export const TEXT_MAX = 4 << 20;
/** Bytes from which on a string is cut out as a whole: a picture, or a prompt that is as long as they may be. */
const LONG_MIN = 16 << 10;
/** Quotes within one: a picture has none, a text has some. */
const QUOTES_MAX = 1000;
/** No request has a use for more, and code that walks what it was sent has a stack. */
const DEPTH_MAX = 64;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN = new Set([0x5b, 0x7b]);
const CLOSE = new Set([0x5d, 0x7d]);

/** The value of a body; undefined for an empty one. @throws CodedError BODY_INVALID, BODY_TOO_LARGE */
export function parseJson(bytes: Buffer): unknown {
  if (bytes.length === 0) return undefined;
  // A byte order mark, which editors on Windows write.
  const start = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
  const { text, pictures } = liftPictures(bytes.subarray(start));
  try {
    const value = JSON.parse(quoteLongSeeds(text));
    return pictures.length === 0 ? value : putBack(value, pictures);
  } catch (cause) {
    throw new CodedError('BODY_INVALID', `the body is not JSON: ${(cause as Error).message.slice(0, 200)}`, { cause });
  }
}

/** JavaScript would round them: as text they keep their digits. */
function quoteLongSeeds(text: string): string {
  return text.replace(/("seed"\s{0,100}:\s{0,100})(-?\d{16,30})(?=[\s,}])/gi, '$1"$2"');
}

/** Stands for a picture in the text: no JSON that a client may send has this string, for it is one of ours. */
class Lifted {
  readonly mark: string;
  readonly #bytes: Buffer;

  constructor(mark: string, bytes: Buffer) {
    this.mark = mark;
    this.#bytes = bytes;
  }

  /** A string, its quotes with it. PHP writes `/` as `\/`. */
  value(): string {
    return JSON.parse(this.#bytes.toString('utf8')) as string;
  }
}

function liftPictures(bytes: Buffer): { text: string; pictures: Lifted[] } {
  const nonce = `${process.pid}-${Math.random()}-`;
  const pictures: Lifted[] = [];
  const kept: (Buffer | string)[] = [];
  let [keptTo, lifted, depth] = [0, 0, 0];
  for (let at = 0; at < bytes.length; at++) {
    if (at - lifted > TEXT_MAX) throw new CodedError('BODY_TOO_LARGE', 'too much of the body is no picture');
    const byte = bytes[at] as number;
    if (OPEN.has(byte) && ++depth > DEPTH_MAX)
      throw new CodedError('BODY_INVALID', `the body is nested deeper than ${DEPTH_MAX} levels`);
    if (CLOSE.has(byte)) depth--;
    if (byte !== QUOTE) continue;
    const { end, quotes } = endOfString(bytes, at, TEXT_MAX + lifted);
    if (quotes <= QUOTES_MAX && end - at > LONG_MIN) {
      const picture = new Lifted(`${nonce}${pictures.length}`, bytes.subarray(at, end + 1));
      pictures.push(picture);
      kept.push(bytes.subarray(keptTo, at), JSON.stringify(picture.mark));
      keptTo = end + 1;
      lifted += end - at;
    }
    at = end;
  }
  kept.push(bytes.subarray(keptTo));
  return { text: kept.map((part) => part.toString('utf8')).join(''), pictures };
}

/** Where the string that begins at `start` ends, and how many quotes are within it. */
function endOfString(bytes: Buffer, start: number, textEnd: number): { end: number; quotes: number } {
  let quotes = 0;
  for (let end = bytes.indexOf(QUOTE, start + 1); end >= 0; end = bytes.indexOf(QUOTE, end + 1)) {
    let slashes = 0;
    while (bytes[end - 1 - slashes] === BACKSLASH) slashes++;
    if (slashes % 2 === 0) return { end, quotes };
    if (++quotes > QUOTES_MAX && end > textEnd)
      throw new CodedError('BODY_TOO_LARGE', 'too much of the body is no picture');
  }
  // JSON.parse says where.
  return { end: bytes.length, quotes: Number.POSITIVE_INFINITY };
}

function putBack(value: unknown, pictures: readonly Lifted[]): unknown {
  const byMark = new Map(pictures.map((picture) => [picture.mark, picture]));
  const walk = (node: unknown): unknown => {
    if (typeof node === 'string') return byMark.get(node)?.value() ?? node;
    if (typeof node !== 'object' || node === null) return node;
    for (const [key, child] of Object.entries(node)) {
      if (typeof child === 'object' || typeof child === 'string') Reflect.set(node, key, walk(child));
    }
    return node;
  };
  return walk(value);
}
