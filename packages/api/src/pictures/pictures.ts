/** Finished pictures as clients get them: the file itself, another format, or a thumbnail. */
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { replaceFile } from '@qwen-supervisor/files/replace-file';
import { inputFile, type ThumbnailSide, thumbnailFile } from '@qwen-supervisor/protocol/data-files';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { type Job, pictureOf } from '@qwen-supervisor/protocol/job';
import type { Backend } from '../backend.js';
import { withSharp } from './load-sharp.js';

export const FORMATS = ['png', 'jpeg', 'webp'] as const;
export type Format = (typeof FORMATS)[number];

/** What is asked for; `quality` 1 to 100 is for the formats that lose something. */
export interface Encoding {
  format: Format;
  quality: number;
}

export const QUALITY_DEFAULT = 90;
const THUMBNAIL_QUALITY = 75;

/** The PNG of a picture that the supervisor has found. @throws CodedError IMAGE_NOT_FOUND */
export function readPicture({ welcome }: Backend, { file }: { file: string }): Promise<Buffer> {
  return readFile(join(welcome.dataDir, file)).catch((cause) => {
    throw new CodedError('IMAGE_NOT_FOUND', 'the file of this picture is gone', { cause });
  });
}

/** The same as a stream, for those who read it at their own pace. @throws CodedError IMAGE_NOT_FOUND */
export async function streamPicture({ welcome }: Backend, { file }: { file: string }): Promise<PictureStream> {
  const opened = await open(join(welcome.dataDir, file)).catch((cause) => {
    throw new CodedError('IMAGE_NOT_FOUND', 'the file of this picture is gone', { cause });
  });
  const { size } = await opened.stat();
  return { size, stream: opened.createReadStream() };
}

interface PictureStream {
  /** Bytes. */
  size: number;
  stream: Readable;
}

/** The picture of a job that has ended. @throws CodedError of the job, JOB_CANCELLED, IMAGE_NOT_FOUND */
export async function pictureOfJob(backend: Backend, job: Job, encoding: Encoding): Promise<Buffer> {
  const found = await backend.link.request('findImage', { id: pictureOf(job).id });
  return encodeAs(() => readPicture(backend, found), encoding);
}

/** PNG as it is; the other formats carry pixels only. What is `read` is held only while it is its turn. */
export async function encodeAs(read: Buffer | (() => Promise<Buffer>), { format, quality }: Encoding): Promise<Buffer> {
  const get = async () => (typeof read === 'function' ? read() : read);
  if (format === 'png') return get();
  return withSharp(async (sharp) => {
    const picture = sharp(await get());
    return format === 'jpeg'
      ? picture.jpeg({ quality, chromaSubsampling: '4:4:4' }).toBuffer()
      : picture.webp({ quality }).toBuffer();
  });
}

/** A preview at the size that the picture will have. */
export async function enlargePreview(preview: Uint8Array, { width, height }: Job, encoding: Encoding): Promise<Buffer> {
  const enlarged = await withSharp((sharp) => sharp(preview).resize(width, height, { fit: 'fill' }).png().toBuffer());
  return encodeAs(enlarged, encoding);
}

/** A small WebP, made when it is first asked for and kept beside the picture. @throws CodedError IMAGE_NOT_FOUND */
export async function readThumbnail(backend: Backend, found: { file: string }, side: ThumbnailSide): Promise<Buffer> {
  const path = join(backend.welcome.dataDir, thumbnailFile(found.file, side));
  const known = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw error;
  });
  if (known) return known;
  const webp = await withSharp(async (sharp) =>
    sharp(await readPicture(backend, found))
      .resize(side, side, { fit: 'inside', withoutEnlargement: true })
      .webp({ quality: THUMBNAIL_QUALITY })
      .toBuffer(),
  );
  // A full disk costs the next one some time, and nobody misses one after a power cut.
  await replaceFile(path, webp, { sync: false }).catch((error: Error) => {
    console.error(`thumbnail not kept: ${error.message}`);
  });
  return webp;
}

/** A picture that jobs draw over, by its SHA-256. @throws CodedError IMAGE_NOT_FOUND */
export async function readInput({ welcome }: Backend, sha256: string): Promise<Buffer> {
  return readFile(join(welcome.dataDir, inputFile(sha256))).catch((cause) => {
    throw new CodedError('IMAGE_NOT_FOUND', 'the picture that was drawn over is gone', { cause });
  });
}

export function contentType(format: Format): string {
  return `image/${format}`;
}
