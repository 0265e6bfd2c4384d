/**
 * Multipart forms: fields as text, pictures as bytes. Which of both a part is, clients disagree about: what is named as
 * a picture is one, with a file name or without. RFC 7578.
 */
import { createHash } from 'node:crypto';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { pictureName } from '../contract/wording.js';
import { decodeBase64 } from '../pictures/uploads.js';
import { hangUp, receive } from './receive.js';

export interface Form {
  fields: Record<string, string>;
  files: { name: string; bytes: Buffer }[];
}

/** Parts of a form, and bytes of a part that is text. */
export const PARTS_MAX = 36;
const FIELD_MAX = 128 << 10;

/** By these names parts are pictures; `image[]`, `image[0]` and `images` are `image`, too. */
const PICTURES = new Set(['image', 'mask']);

/** @throws CodedError BODY_INVALID, BODY_TOO_LARGE, SERVER_BUSY, UPLOAD_INVALID */
export async function formOf(request: FastifyRequest, reply: FastifyReply): Promise<Form> {
  const form: Form = { fields: Object.create(null), files: [] };
  const hash = createHash('sha256').update(request.url);
  let bytesLeft = request.routeOptions.bodyLimit ?? 0;
  if (Number(request.headers['content-length'] ?? 0) > bytesLeft) throw refused(reply, 'BODY_TOO_LARGE');
  for await (const part of partsOf(request, reply)) {
    // One without a name is whatever its sender thinks.
    const name = pictureName(part.fieldname ?? '');
    const bytes = await receive(part.file, request, bytesLeft).catch((error) => {
      hangUp(reply);
      throw error;
    });
    bytesLeft -= bytes.length;
    hash.update(`\n${name} ${bytes.length}\n`).update(bytes);
    const isFile = part.filename !== undefined || !/^text\/plain\b/.test(part.mimetype);
    // A page sends an empty file where none was chosen.
    if (PICTURES.has(name)) {
      if (bytes.length > 0 || part.filename)
        form.files.push({ name, bytes: isFile || isBinary(bytes) ? bytes : ofText(bytes) });
    } else if (bytes.length > FIELD_MAX) throw refused(reply, 'BODY_TOO_LARGE');
    else if (isFile && bytes.length > 0 && part.filename !== undefined) form.files.push({ name, bytes });
    else form.fields[name] = bytes.toString();
  }
  request.fingerprint = hash.digest('hex');
  return form;
}

/** Whatever is wrong with a form is the client's doing. */
async function* partsOf(request: FastifyRequest, reply: FastifyReply) {
  if (!request.isMultipart()) throw new CodedError('BODY_INVALID', 'the body is not a multipart form');
  try {
    // All of them as files: how long a text is, is ours to bound.
    const limits = { parts: PARTS_MAX, files: PARTS_MAX, fileSize: Number.POSITIVE_INFINITY };
    for await (const part of request.parts({ limits, isPartAFile: () => true })) if (part.type === 'file') yield part;
  } catch (cause) {
    if (cause instanceof CodedError) throw cause;
    const { code = '', message } = cause as Error & { code?: string };
    if (/LIMIT|TOO_LARGE/.test(code)) throw refused(reply, 'BODY_TOO_LARGE');
    throw new CodedError('BODY_INVALID', `the body is not a whole multipart form: ${message}`, { cause });
  }
}

function refused(reply: FastifyReply, code: 'BODY_TOO_LARGE'): CodedError {
  hangUp(reply);
  return new CodedError(code);
}

/** Every format that is taken has bytes in its head that no base64 has. */
function isBinary(bytes: Buffer): boolean {
  return bytes.subarray(0, 16).some((byte) => byte < 0x20 || byte > 0x7e);
}

function ofText(bytes: Buffer): Buffer {
  return decodeBase64(bytes.toString('latin1'));
}
