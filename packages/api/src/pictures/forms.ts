/**
 * Multipart forms: fields as text, files as bytes. Their names and types are what the client says, and are not used.
 */
import { createHash } from 'node:crypto';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { FastifyReply, FastifyRequest } from 'fastify';

export interface Form {
  fields: Record<string, string>;
  files: { name: string; bytes: Buffer }[];
}

/** @throws CodedError BODY_INVALID, BODY_TOO_LARGE */
export async function formOf(request: FastifyRequest, reply: FastifyReply): Promise<Form> {
  if (!request.isMultipart()) throw new CodedError('BODY_INVALID', 'the body is not a multipart form');
  const bytesMax = request.routeOptions.bodyLimit ?? 0;
  if (Number(request.headers['content-length'] ?? 0) > bytesMax) throw tooLarge(reply);
  const form: Form = { fields: Object.create(null), files: [] };
  let bytesSoFar = 0;
  for await (const part of request.parts()) {
    const bytes = part.type === 'file' ? await part.toBuffer() : Buffer.from(String(part.value));
    bytesSoFar += bytes.length;
    if (bytesSoFar > bytesMax) throw tooLarge(reply);
    if (part.type === 'file') form.files.push({ name: part.fieldname, bytes });
    else form.fields[part.fieldname] = bytes.toString();
  }
  // What a repeated request with the same Idempotency-Key is compared with.
  request.body = { fields: form.fields, files: form.files.map(({ name, bytes }) => [name, digest(bytes)]) };
  return form;
}

/** What is left of the body is not waited for. */
function tooLarge(reply: FastifyReply): CodedError {
  reply.header('connection', 'close');
  return new CodedError('BODY_TOO_LARGE');
}

function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
