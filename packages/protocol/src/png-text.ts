/**
 * Texts inside PNG files. Reference: PNG specification (third edition), "tEXt", "iTXt". Text that is not Latin-1 goes
 * into `iTXt`, as Pillow and with it A1111 do.
 */

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
/** Signature, and the header chunk that is always first: length, type, 13 bytes, checksum. */
const AFTER_HEADER = 8 + 4 + 4 + 13 + 4;

/** The file with the texts (keyword → text) put behind its header. */
export function addPngTexts(png: Uint8Array, texts: Record<string, string>): Uint8Array {
  const chunks = Object.entries(texts).map(([keyword, text]) => textChunk(keyword, text));
  return concat([png.subarray(0, AFTER_HEADER), ...chunks, png.subarray(AFTER_HEADER)]);
}

/** Chunks that are looked at, and bytes of texts that are read: of our own pictures both are a fraction of it. */
const CHUNKS_MAX = 10_000;
const TEXT_MAX = 256 << 10;

/**
 * The uncompressed texts of a PNG by keyword, those that are not too long; empty for what is no PNG. Never throws:
 * files come from anywhere.
 */
export function readPngTexts(file: Uint8Array): Record<string, string> {
  const texts: Record<string, string> = Object.create(null);
  if (SIGNATURE.some((byte, i) => file[i] !== byte)) return texts;
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  let [chunks, bytesLeft] = [0, TEXT_MAX];
  for (let at = 8; at + 12 <= file.length && chunks < CHUNKS_MAX; chunks++) {
    const length = view.getUint32(at);
    const type = latin1(file.subarray(at + 4, at + 8));
    const data = file.subarray(at + 8, at + 8 + length);
    if (type === 'IEND' || data.length < length) break;
    at += 12 + length;
    if ((type !== 'tEXt' && type !== 'iTXt') || length > bytesLeft) continue;
    bytesLeft -= length;
    const split = data.indexOf(0);
    if (type === 'tEXt' && split > 0) texts[latin1(data.subarray(0, split))] = latin1(data.subarray(split + 1));
    // Compression flag 0; then language and translated keyword, each ended by 0.
    if (type === 'iTXt' && split > 0 && data[split + 1] === 0) {
      const language = data.indexOf(0, split + 3);
      const translated = data.indexOf(0, language + 1);
      if (language > 0 && translated > 0)
        texts[latin1(data.subarray(0, split))] = new TextDecoder().decode(data.subarray(translated + 1));
    }
  }
  return texts;
}

function textChunk(keyword: string, text: string): Uint8Array {
  const isLatin1 = [...text].every((character) => (character.codePointAt(0) as number) < 256);
  const bytes = isLatin1
    ? Uint8Array.from([...keyword, '\0', ...text], (character) => character.charCodeAt(0))
    : new TextEncoder().encode(`${keyword}\0\0\0\0\0${text}`);
  const chunk = new Uint8Array(12 + bytes.length);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, bytes.length);
  chunk.set(
    Array.from(isLatin1 ? 'tEXt' : 'iTXt', (letter) => letter.charCodeAt(0)),
    4,
  );
  chunk.set(bytes, 8);
  view.setUint32(8 + bytes.length, crc32(chunk.subarray(4, 8 + bytes.length)));
  return chunk;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1;
  return c;
});

function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (CRC_TABLE[(crc ^ byte) & 0xff] as number) ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

function latin1(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

function concat(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
