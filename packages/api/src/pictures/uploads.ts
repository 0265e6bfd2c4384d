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
import {
  type DrawnModel,
  type JobLimits,
  type NativeRequest,
  shrinkTo,
  sizeLike,
} from '@qwen-supervisor/protocol/job-request';
import type { Sharp } from 'sharp';
import { type Sharp as SharpModule, withSharp } from './load-sharp.js';
import { pixelsOnly } from './pixels-only.js';

/** Pixels of a picture that is decoded. A small file may claim any size. */
const PIXELS_MAX = 50_000_000;
/** Seconds that a picture may take to be decoded: those of the largest are few. */
const SECONDS_MAX = 30;

export interface Upload {
  /** Its file, with nothing in it but pixels. */
  bytes: Buffer;
  /** As EXIF counts them: how it lies in the file. */
  orientation: number;
  /** As it is to be seen, its orientation applied. */
  width: number;
  height: number;
}

/** Quarter turns and mirroring that put a picture upright, by its orientation. Reference: EXIF 2.32, tag 0x0112. */
const UPRIGHT: Record<number, { turn: number; flip?: true; flop?: true }> = {
  1: { turn: 0 },
  2: { turn: 0, flop: true },
  3: { turn: 180 },
  4: { turn: 0, flip: true },
  5: { turn: 270, flip: true },
  6: { turn: 90 },
  7: { turn: 90, flip: true },
  8: { turn: 270 },
};

/** Of a text whether it is base64 at all is seen at its head, and at how much of it counts. */
const HEAD = 256;
/** Share of a text that may be line ends. */
const BLANK_MAX = 0.1;

/** A picture as text: base64, or a `data:` URL of it. @throws CodedError UPLOAD_INVALID */
export function decodeBase64(text: string): Buffer {
  const comma = text.startsWith('data:') ? text.slice(0, HEAD).indexOf(',') : -1;
  const base64 = text.slice(comma + 1);
  const bytes = Buffer.from(base64, 'base64');
  const expected = (base64.length - 4) * 0.75;
  if (!/^[A-Za-z0-9+/_-][A-Za-z0-9+/_=\s-]*$/.test(base64.slice(0, HEAD)) || bytes.length < expected * (1 - BLANK_MAX))
    throw new CodedError('UPLOAD_INVALID', 'not base64');
  return bytes;
}

/** Looks at a picture without decoding it. @throws CodedError UPLOAD_INVALID */
export async function inspect(file: Buffer): Promise<Upload> {
  if (file.length === 0) throw new CodedError('UPLOAD_INVALID', 'the picture is empty');
  const { bytes, orientation } = pixelsOnly(file);
  const { width, height } = await withSharp((sharp) => open(sharp, bytes).metadata()).catch((cause: Error) => {
    throw new CodedError('UPLOAD_INVALID', `not a picture that can be read: ${firstLine(cause)}`, { cause });
  });
  // Orientations from 5 on lie on their side.
  return orientation < 5 ? { bytes, orientation, width, height } : { bytes, orientation, width: height, height: width };
}

/** A side that is not given follows the picture, as far as there is room. */
export function sizeFor(
  upload: Upload,
  given: Pick<NativeRequest, 'width' | 'height'>,
  { model, limits }: { model: Pick<DrawnModel, 'defaults'>; limits: JobLimits },
): { width: number; height: number } {
  const like = shrinkTo(sizeLike(upload, model.defaults), Math.min(limits.maxPixels, limits.memoryPixels));
  return { width: given.width ?? like.width, height: given.height ?? like.height };
}

/**
 * Stores a picture, scaled to the size that is drawn, for a worker to draw over; gives its SHA-256. Transparent parts
 * are white. `crop`: it keeps its shape and is cut; else it is stretched, as diffusers does.
 * @throws CodedError UPLOAD_INVALID, DISK_FULL, IMAGE_WRITE_FAILED
 */
export async function storeInput(
  dataDir: string,
  { bytes, orientation }: Upload,
  size: { width: number; height: number },
  crop: boolean,
): Promise<string> {
  const { turn = 0, flip, flop } = UPRIGHT[orientation] ?? {};
  const png = await withSharp((sharp) =>
    open(sharp, bytes)
      .timeout({ seconds: SECONDS_MAX })
      .rotate(turn)
      .flatten({ background: 'white' })
      .resize(size.width, size.height, { fit: crop ? 'cover' : 'fill' })
      .flip(flip ?? false)
      .flop(flop ?? false)
      .toColourspace('srgb')
      .png({ compressionLevel: 3 })
      .toBuffer(),
  ).catch((cause: Error) => {
    throw new CodedError('UPLOAD_INVALID', `the picture cannot be decoded: ${firstLine(cause)}`, { cause });
  });
  const sha256 = createHash('sha256').update(png).digest('hex');
  await writeOnce(join(dataDir, inputFile(sha256)), png);
  return sha256;
}

/** How a mask is meant. */
export interface MaskTerms {
  /** Where the mask is transparent is drawn anew (OpenAI), rather than where it is white (A1111). */
  byTransparency?: boolean;
  /** The other parts are. */
  invert?: boolean;
  /** Softens its edge, pixels. */
  blur?: number;
}

/** Of a blur, pixels: no edge is softer. */
const BLUR_MAX = 64;

/**
 * Stores where a picture is drawn anew, white, as a grey picture of the size that is drawn; gives its SHA-256.
 * @throws CodedError UPLOAD_INVALID, DISK_FULL, IMAGE_WRITE_FAILED
 */
export async function storeMask(
  dataDir: string,
  { bytes, orientation }: Upload,
  size: { width: number; height: number },
  crop: boolean,
  { byTransparency = false, invert = false, blur = 0 }: MaskTerms,
): Promise<string> {
  const { turn = 0, flip, flop } = UPRIGHT[orientation] ?? {};
  const png = await withSharp(async (sharp) => {
    const { isOpaque } = await open(sharp, bytes).timeout({ seconds: SECONDS_MAX }).stats();
    if (byTransparency && isOpaque)
      throw new CodedError('UPLOAD_INVALID', 'mask: has no transparent parts, which say where to draw anew');
    const upright = open(sharp, bytes).timeout({ seconds: SECONDS_MAX }).rotate(turn);
    // As A1111 reads one with transparency: by that alone.
    const grey = isOpaque ? upright.removeAlpha().toColourspace('b-w') : upright.extractChannel('alpha');
    const lying = await grey
      .resize(size.width, size.height, { fit: crop ? 'cover' : 'fill' })
      .flip(flip ?? false)
      .flop(flop ?? false)
      .toColourspace('b-w')
      .png()
      .toBuffer();
    let mask = sharp(lying);
    if (blur > 0) mask = mask.blur(Math.max(0.3, Math.min(blur, BLUR_MAX)));
    if (invert !== byTransparency) mask = mask.negate();
    return mask.toColourspace('b-w').png({ compressionLevel: 3 }).toBuffer();
  }).catch((cause: Error) => {
    if (cause instanceof CodedError) throw cause;
    throw new CodedError('UPLOAD_INVALID', `the mask cannot be decoded: ${firstLine(cause)}`, { cause });
  });
  const sha256 = createHash('sha256').update(png).digest('hex');
  await writeOnce(join(dataDir, inputFile(sha256)), png);
  return sha256;
}

function open(sharp: SharpModule, bytes: Buffer): Sharp {
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
