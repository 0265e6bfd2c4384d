/** Writes a picture to the data folder: whole and durable under its name, or not at all. */
import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { replaceFile } from '@qwen-supervisor/files/replace-file';
import { IMAGES_FOLDER, imageFile, inputFile } from '@qwen-supervisor/protocol/data-files';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { addPngTexts } from '@qwen-supervisor/protocol/png-text';
import sharp from 'sharp';
import type { Picture } from './recipe/pipeline.js';

export interface PictureFile {
  /** Relative to the data folder. */
  file: string;
  /** Of the file, hexadecimal. */
  sha256: string;
  bytes: number;
}

/**
 * Encodes as PNG and writes `images/<id>.png`. The bytes depend on pixels and texts alone: no time, no host, no id.
 * @throws CodedError IMAGE_WRITE_FAILED
 */
export async function writePicture(
  picture: Picture,
  texts: Record<string, string>,
  dataDir: string,
  id: string,
): Promise<PictureFile> {
  const png = addPngTexts(await encodePng(picture), texts);
  const file = imageFile(id);
  const path = join(dataDir, file);
  try {
    await mkdir(join(dataDir, IMAGES_FOLDER), { recursive: true });
    await replaceFile(path, png);
  } catch (cause) {
    throw new CodedError('IMAGE_WRITE_FAILED', `${path}: ${(cause as Error).message}`, { cause });
  }
  return { file, sha256: createHash('sha256').update(png).digest('hex'), bytes: png.length };
}

/**
 * The pixels that a job draws over, RGBRGB…, or those of its mask, a byte each, as the API has stored them.
 * @throws CodedError IMAGE_NOT_FOUND
 */
export async function readInput(dataDir: string, sha256: string, channels: 1 | 3): Promise<Uint8Array> {
  try {
    return await sharp(join(dataDir, inputFile(sha256)))
      .removeAlpha()
      .toColourspace(channels === 1 ? 'b-w' : 'srgb')
      .raw()
      .toBuffer();
  } catch (cause) {
    throw new CodedError('IMAGE_NOT_FOUND', `the picture to draw over cannot be read: ${(cause as Error).message}`, {
      cause,
    });
  }
}

export function encodePng({ pixels, width, height }: Picture): Promise<Buffer> {
  return sharp(pixels, { raw: { width, height, channels: 3 } })
    .png()
    .toBuffer();
}
