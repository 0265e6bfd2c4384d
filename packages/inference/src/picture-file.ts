/** Writes a picture to the data folder: whole and durable under its name, or not at all. */
import { createHash } from 'node:crypto';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import sharp from 'sharp';
import type { Picture } from './pipeline.js';

/** Folder of the pictures below the data folder. */
export const IMAGES_FOLDER = 'images';

export interface PictureFile {
  /** Relative to the data folder. */
  file: string;
  /** Of the file, hexadecimal. */
  sha256: string;
  bytes: number;
}

/**
 * Encodes as PNG and writes `images/<id>.png`. The bytes depend on the pixels alone: no time, no host, no id.
 * @throws CodedError IMAGE_WRITE_FAILED
 */
export async function writePicture(picture: Picture, dataDir: string, id: string): Promise<PictureFile> {
  const png = await encodePng(picture);
  const file = join(IMAGES_FOLDER, `${id}.png`);
  const path = join(dataDir, file);
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    await mkdir(join(dataDir, IMAGES_FOLDER), { recursive: true });
    const handle = await open(temporary, 'w');
    try {
      await handle.writeFile(png);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (cause) {
    await rm(temporary, { force: true });
    throw new CodedError('IMAGE_WRITE_FAILED', `${path}: ${(cause as Error).message}`, { cause });
  }
  return { file, sha256: createHash('sha256').update(png).digest('hex'), bytes: png.length };
}

export function encodePng({ pixels, width, height }: Picture): Promise<Buffer> {
  return sharp(pixels, { raw: { width, height, channels: 3 } })
    .png()
    .toBuffer();
}
