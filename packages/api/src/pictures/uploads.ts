/**
 * Pictures that clients send. They are decoded here, within limits, and stored as plain pixels of the size that is
 * drawn: nothing of what a client sent is kept, and no name or path of its is ever used.
 */
import { createHash } from 'node:crypto';
import { stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { replaceFile } from '@qwen-supervisor/files/replace-file';
import { inputFile } from '@qwen-supervisor/protocol/data-files';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Sharp } from 'sharp';
import { loadSharp } from './load-sharp.js';

/** Pixels of a picture that is decoded. A small file may claim any size. */
const PIXELS_MAX = 50_000_000;
const FORMATS = new Set(['png', 'jpeg', 'webp', 'gif']);

export interface Upload {
  bytes: Buffer;
  /** As it is to be seen, its orientation applied. */
  width: number;
  height: number;
}

/** A picture as text: base64, or a `data:` URL of it. @throws CodedError UPLOAD_INVALID */
export function decodeBase64(text: string): Buffer {
  const base64 = text.replace(/^data:[^,]{0,200},/, '').replace(/\s+/g, '');
  if (!/^[A-Za-z0-9+/_-]+=*$/.test(base64)) throw new CodedError('UPLOAD_INVALID', 'not base64');
  return Buffer.from(base64, 'base64');
}

/** Looks at a picture without decoding it. @throws CodedError UPLOAD_INVALID */
export async function inspect(bytes: Buffer): Promise<Upload> {
  if (bytes.length === 0) throw new CodedError('UPLOAD_INVALID', 'the picture is empty');
  const opened = await picture(bytes);
  const {
    format,
    width,
    height,
    orientation = 1,
  } = await opened.metadata().catch((cause: Error) => {
    throw new CodedError('UPLOAD_INVALID', `not a picture that can be read: ${firstLine(cause)}`, { cause });
  });
  if (!FORMATS.has(format)) throw new CodedError('UPLOAD_INVALID', `${format} is not taken`);
  // Orientations from 5 on lie on their side.
  return orientation < 5 ? { bytes, width, height } : { bytes, width: height, height: width };
}

/**
 * Stores a picture, scaled to the size that is drawn, for a worker to draw over; gives its SHA-256. Transparent parts
 * are white. `crop`: it keeps its shape and is cut; else it is stretched, as diffusers does.
 * @throws CodedError UPLOAD_INVALID, DISK_FULL, IMAGE_WRITE_FAILED
 */
export async function storeInput(
  dataDir: string,
  { bytes }: Upload,
  size: { width: number; height: number },
  crop: boolean,
): Promise<string> {
  const opened = await picture(bytes);
  const png = await opened
    .autoOrient()
    .flatten({ background: 'white' })
    .resize(size.width, size.height, { fit: crop ? 'cover' : 'fill' })
    .toColourspace('srgb')
    .png({ compressionLevel: 3 })
    .toBuffer()
    .catch((cause: Error) => {
      throw new CodedError('UPLOAD_INVALID', `the picture cannot be decoded: ${firstLine(cause)}`, { cause });
    });
  const sha256 = createHash('sha256').update(png).digest('hex');
  await writeOnce(join(dataDir, inputFile(sha256)), png);
  return sha256;
}

async function picture(bytes: Buffer): Promise<Sharp> {
  const sharp = await loadSharp();
  return sharp(bytes, { limitInputPixels: PIXELS_MAX, failOn: 'error', animated: false });
}

/** The name says what is in it: a file that is there is the same, and is only as good as new. */
async function writeOnce(path: string, bytes: Buffer): Promise<void> {
  try {
    if (await exists(path)) return await utimes(path, new Date(), new Date());
    await replaceFile(path, bytes);
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const isFull = code === 'ENOSPC' || code === 'EDQUOT';
    const text = `the picture could not be stored: ${message}`;
    throw new CodedError(isFull ? 'DISK_FULL' : 'IMAGE_WRITE_FAILED', text, { cause });
  }
}

function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return false;
      throw error;
    },
  );
}

function firstLine(error: Error): string {
  return (error.message.split('\n')[0] ?? '').slice(0, 200);
}
