/** Multipart forms: fields as text, files as bytes. Their names and types are what the client says, and are not used. */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { FastifyRequest } from 'fastify';

export interface Form {
  fields: Record<string, string>;
  files: { name: string; bytes: Buffer }[];
}

/** @throws CodedError BODY_INVALID, BODY_TOO_LARGE */
export async function formOf(request: FastifyRequest): Promise<Form> {
  if (!request.isMultipart()) throw new CodedError('BODY_INVALID', 'the body is not a multipart form');
  const form: Form = { fields: Object.create(null), files: [] };
  for await (const part of request.parts()) {
    if (part.type === 'file') form.files.push({ name: part.fieldname, bytes: await part.toBuffer() });
    else form.fields[part.fieldname] = String(part.value);
  }
  // What the key of a repeated request is compared with.
  request.body = { fields: form.fields, files: form.files.map(({ name, bytes }) => [name, bytes.toString('base64')]) };
  return form;
}
