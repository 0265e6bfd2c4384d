/**
 * Reader of the safetensors format: 8 bytes little-endian header length, a JSON header, raw data.
 * Format: https://github.com/huggingface/safetensors#format. Nothing in a file is trusted before it is checked.
 */
import { closeSync, readSync } from 'node:fs';
import { openRegular } from '@qwen-supervisor/files/read-regular';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { DTYPE_BYTES, isWeightDtype, toFloat32, type WeightDtype } from './dtype.js';
import { HEAD_BYTES, kindOfType, refuseForeign } from './foreign-files.js';

/** One tensor of a file. `offset` counts from the start of the file, `length` is in bytes. */
export interface TensorEntry {
  name: string;
  file: string;
  dtype: string;
  shape: number[];
  offset: number;
  length: number;
}

/**
 * Bytes of a header. The format allows 100 MB; the largest file of this model takes some hundred KB, and a header is
 * parsed in one go.
 */
const HEADER_MAX = 4 << 20;

/**
 * Reads and checks the header of `file`.
 * @throws CodedError MODEL_NOT_FOUND, MODEL_TRUNCATED, MODEL_INVALID
 */
export function readSafetensorsHeader(file: string): Map<string, TensorEntry> {
  const { fd, size } = openForReading(file);
  try {
    const head = readAt(fd, file, 0, Math.min(size, HEAD_BYTES));
    refuseForeign(file, head);
    if (size < 8) throw new CodedError('MODEL_TRUNCATED', `${file}: ${size} bytes are too few for a safetensors file`);
    const headerLength = Number(head.readBigUInt64LE());
    if (headerLength > HEADER_MAX) throw invalid(file, `a header of ${headerLength} bytes is not plausible`);
    if (8 + headerLength > size) {
      throw new CodedError('MODEL_TRUNCATED', `${file}: ends inside its header (${size} of ${8 + headerLength} bytes)`);
    }
    const header = parseHeader(file, readAt(fd, file, 8, headerLength));
    const entries = new Map<string, TensorEntry>();
    for (const [name, value] of Object.entries(header)) {
      if (name === '__metadata__') continue;
      entries.set(name, checkEntry(file, name, value, 8 + headerLength));
    }
    checkLayout(file, entries, 8 + headerLength, size);
    return entries;
  } finally {
    closeSync(fd);
  }
}

/**
 * The elements `from` to `to` of a tensor (all without bounds) as float32.
 * @throws CodedError MODEL_INVALID for a type that weights cannot have, MODEL_TRUNCATED
 */
export function readFloat32(tensor: TensorEntry, from = 0, to = elementCount(tensor.shape)): Float32Array {
  const dtype = weightDtype(tensor);
  const width = DTYPE_BYTES[dtype] as number;
  const { fd } = openForReading(tensor.file);
  try {
    return toFloat32(dtype, readAt(fd, tensor.file, tensor.offset + from * width, (to - from) * width));
  } finally {
    closeSync(fd);
  }
}

/** The tensor's type, if weights can have it. @throws CodedError MODEL_UNSUPPORTED */
export function weightDtype(tensor: TensorEntry): WeightDtype {
  if (!isWeightDtype(tensor.dtype)) {
    throw new CodedError(
      'MODEL_UNSUPPORTED',
      `${tensor.file}: tensor ${tensor.name} is ${kindOfType(tensor.dtype)}; weights are F32, F16 or BF16`,
    );
  }
  return tensor.dtype;
}

export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, side) => product * side, 1);
}

/** Exactly `length` bytes at `position`. @throws CodedError MODEL_TRUNCATED */
export function readAt(fd: number, file: string, position: number, length: number): Buffer {
  const buffer = Buffer.allocUnsafe(length);
  let done = 0;
  while (done < length) {
    const count = readOrThrow(fd, file, buffer, done, position);
    if (count === 0) throw new CodedError('MODEL_TRUNCATED', `${file}: ends at byte ${position + done}`);
    done += count;
  }
  return buffer;
}

function readOrThrow(fd: number, file: string, buffer: Buffer, done: number, position: number): number {
  try {
    return readSync(fd, buffer, done, buffer.length - done, position + done);
  } catch (cause) {
    throw new CodedError('MODEL_INVALID', `${file}: ${(cause as Error).message}`, { cause });
  }
}

/** Descriptor and size of a file of a checkpoint. @throws CodedError MODEL_NOT_FOUND */
export function openForReading(file: string): { fd: number; size: number } {
  try {
    const { fd, stats } = openRegular(file);
    return { fd, size: stats.size };
  } catch (cause) {
    throw unopened(file, cause as NodeJS.ErrnoException);
  }
}

/** The system has no such file, or it is something else than a file. */
export function unopened(file: string, cause: NodeJS.ErrnoException): CodedError {
  return new CodedError(cause.code ? 'MODEL_NOT_FOUND' : 'MODEL_INVALID', `${file}: ${cause.message}`, { cause });
}

function parseHeader(file: string, bytes: Buffer): Record<string, unknown> {
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new CodedError('MODEL_INVALID', `${file}: its header is not JSON`, { cause });
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header)) {
    throw invalid(file, 'its header is not a JSON object');
  }
  return header as Record<string, unknown>;
}

function checkEntry(file: string, name: string, value: unknown, dataStart: number): TensorEntry {
  const { dtype, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>;
  const width = typeof dtype === 'string' && Object.hasOwn(DTYPE_BYTES, dtype) ? DTYPE_BYTES[dtype] : undefined;
  if (width === undefined && typeof dtype === 'string' && /^[A-Z]\w{1,20}$/.test(dtype))
    throw new CodedError('MODEL_UNSUPPORTED', `${file}: tensor ${shorten(name, 200)} is ${kindOfType(dtype)}`);
  if (width === undefined)
    throw invalid(file, `tensor ${name} has the unknown type ${shorten(JSON.stringify(dtype) ?? 'undefined', 100)}`);
  if (!isCountList(shape)) throw invalid(file, `tensor ${name} has no valid shape`);
  if (!isCountList(offsets) || offsets.length !== 2) throw invalid(file, `tensor ${name} has no valid data_offsets`);
  const [begin, end] = offsets as [number, number];
  const length = elementCount(shape) * width;
  if (!Number.isSafeInteger(length) || end - begin !== length) {
    throw invalid(file, `tensor ${name} of shape [${shape}] needs ${length} bytes but has ${end - begin}`);
  }
  return { name, file, dtype: dtype as string, shape, offset: dataStart + begin, length };
}

/** Tensors must follow each other without overlap and must end where the file ends. */
function checkLayout(file: string, entries: Map<string, TensorEntry>, dataStart: number, size: number): void {
  let end = dataStart;
  for (const tensor of [...entries.values()].sort((a, b) => a.offset - b.offset || a.length - b.length)) {
    if (tensor.offset < end) throw invalid(file, `tensor ${tensor.name} overlaps the tensor before it`);
    if (tensor.offset > end)
      throw invalid(file, `there is a hole of ${tensor.offset - end} bytes before ${tensor.name}`);
    end = tensor.offset + tensor.length;
  }
  if (end > size) throw new CodedError('MODEL_TRUNCATED', `${file}: has ${size} bytes, its header promises ${end}`);
  if (end < size) throw invalid(file, `has ${size - end} bytes more than its header says`);
}

function isCountList(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}

/** Names and shapes in a header may be as long as the header itself. */
function shorten(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length)} …`;
}

function invalid(file: string, problem: string): CodedError {
  return new CodedError('MODEL_INVALID', `${file}: ${shorten(problem, 400)}`);
}
