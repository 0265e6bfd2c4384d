/**
 * The prepared weights of one component: a safetensors file of its own, which anything that reads safetensors can
 * open. Linear layers are codes and scales (quantise.ts), all others float32. Its header says, under `__metadata__`,
 * which version of this format it is, what it was made from and how, and the SHA-256 of every tensor.
 *
 * It is written under another name. What is done is noted tensor by tensor in a journal, so that a preparation that was
 * killed goes on; the file gets its name when it is whole. The same source gives the same bytes, however often the
 * preparation was interrupted.
 */
import {
  closeSync,
  existsSync,
  fdatasyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { syncFolderSync } from '@qwen-supervisor/files/replace-file';
import { writeAll } from '@qwen-supervisor/files/write-all';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { z } from 'zod';
import { openForReading, readAt } from '../safetensors.js';
import type { Precision } from './precision.js';
import { BLOCK, CODES, type Quality, rowSizes, SCALES } from './quantise.js';

/** Part of every header: a change of what is written must change it. */
export const FORMAT_VERSION = 1;
const NO_SUM = '0'.repeat(64);
/** Bytes between two notes in the journal that are waited for until the disk has them. */
const SYNC_BYTES = 64 << 20;
/** Where data begins, and each tensor. */
const ALIGNMENT = 64;

/** A weight to be prepared. */
export interface Wanted {
  name: string;
  shape: readonly number[];
  precision: Precision;
}

/** Where the bytes of a prepared weight lie in the file: its codes and scales, or its float32 values alone. */
export interface Place {
  offset: number;
  length: number;
  /** Null for float32. */
  scales: { offset: number; length: number } | null;
}

export interface Layout {
  /** In the order of the file. */
  places: Place[];
  size: number;
  /** The beginning of the file, with the sums of those that are done. */
  header(sums: readonly (Sums | undefined)[]): Buffer;
}

/** SHA-256 in hexadecimal of a weight's tensors. */
export interface Sums {
  values: string;
  scales: string | null;
}

/** How a component is prepared, as the header tells. */
export interface Recipe {
  /** What it is made from and how: fingerprints of the checkpoint and the LoRA in it, and the precision chosen. */
  source: string;
  quality: Quality;
}

/** Lays the file out. Padding between tensors is none: the format forbids holes, and sizes are multiples of 4. */
export function layOut(wanted: readonly Wanted[], recipe: Recipe): Layout {
  const parts = wanted.map(({ name, shape, precision }) => {
    const [rows = 1, columns = 1] = shape;
    const elements = shape.reduce((product, side) => product * side, 1);
    if (precision === 'float32') return [{ name, dtype: 'F32', shape, length: 4 * elements }];
    const bits = precision === 'int4' ? 4 : 8;
    const sizes = rowSizes(columns, bits);
    const codes = [rows, sizes.scales, (BLOCK * bits) / 8];
    return [
      { name: `${name}${CODES}`, dtype: 'U8', shape: codes, length: rows * sizes.codes },
      { name: `${name}${SCALES}`, dtype: 'F32', shape: [rows * sizes.scales], length: 4 * rows * sizes.scales },
    ];
  });
  const build = (sums: readonly (Sums | undefined)[]) => {
    let at = 0;
    const entries = parts.flat().map(({ name, dtype, shape, length }) => {
      at += length;
      return [name, { dtype, shape, data_offsets: [at - length, at] }];
    });
    const checksums = parts.flatMap((of, i) =>
      of.map(({ name }, n) => [name, (n === 0 ? sums[i]?.values : sums[i]?.scales) ?? NO_SUM]),
    );
    const metadata = {
      format: 'qwen-supervisor',
      version: String(FORMAT_VERSION),
      source: recipe.source,
      quality: recipe.quality,
      sha256: JSON.stringify(Object.fromEntries(checksums)),
    };
    const json = Buffer.from(JSON.stringify({ __metadata__: metadata, ...Object.fromEntries(entries) }));
    const length = Math.ceil((8 + json.length) / ALIGNMENT) * ALIGNMENT - 8;
    const head = Buffer.alloc(8 + length, ' ');
    head.writeBigUInt64LE(BigInt(length));
    json.copy(head, 8);
    return head;
  };
  let offset = build([]).length;
  const places = parts.map(([values, scales]): Place => {
    const place = { offset, length: values?.length ?? 0, scales: null };
    offset += place.length;
    if (!scales) return place;
    offset += scales.length;
    return { ...place, scales: { offset: offset - scales.length, length: scales.length } };
  });
  return { places, size: offset, header: build };
}

/** Keeps the journal of one file, and gives it its name in the end. */
export class PreparedFileWriter {
  /** Under which others write into it. */
  readonly partial: string;
  readonly #file: string;
  readonly #layout: Layout;
  readonly #sums: (Sums | undefined)[];
  readonly #fd: number;
  readonly #journal: number;
  #journalEnd: number;
  #unsynced: string[] = [];
  #unsyncedBytes = 0;
  #closed = false;

  /** Goes on with what is there, if it is of the same layout and recipe. @throws Error of the file system */
  constructor(file: string, layout: Layout) {
    this.#file = file;
    this.#layout = layout;
    this.partial = `${file}.part`;
    const journal = `${file}.journal`;
    const header = layout.header([]);
    this.#sums = existsSync(journal) && isBegunWith(this.partial, header) ? readJournal(journal, layout) : [];
    const goesOn = this.#sums.length > 0;
    this.#fd = openSync(this.partial, goesOn ? 'r+' : 'w');
    if (!goesOn) {
      writeAll(this.#fd, header, 0);
      ftruncateSync(this.#fd, layout.size);
    }
    this.#journal = openSync(journal, goesOn ? 'r+' : 'w');
    // Behind the last whole line: a full disk or a power cut may have left half of one.
    this.#journalEnd = goesOn ? readFileSync(journal).lastIndexOf('\n') + 1 : 0;
  }

  isDone(index: number): boolean {
    return this.#sums[index] !== undefined;
  }

  /** The weight's bytes are written; they are noted when the disk has them. */
  done(index: number, sums: Sums): void {
    this.#sums[index] = sums;
    const { length, scales } = this.#layout.places[index] as Place;
    this.#unsynced.push(`${JSON.stringify([index, sums.values, sums.scales])}\n`);
    this.#unsyncedBytes += length + (scales?.length ?? 0);
    if (this.#unsyncedBytes >= SYNC_BYTES) this.sync();
  }

  sync(): void {
    fdatasyncSync(this.#fd);
    const lines = Buffer.from(this.#unsynced.join(''));
    writeAll(this.#journal, lines, this.#journalEnd);
    this.#journalEnd += lines.length;
    [this.#unsynced, this.#unsyncedBytes] = [[], 0];
  }

  /** All weights are done. */
  finish(): void {
    this.sync();
    writeAll(this.#fd, this.#layout.header(this.#sums), 0);
    fdatasyncSync(this.#fd);
    this.close();
    renameSync(this.partial, this.#file);
    rmSync(`${this.#file}.journal`, { force: true });
    syncFolderSync(dirname(this.#file));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
    closeSync(this.#journal);
  }
}

const journalLine = z.tuple([z.int().min(0), z.string().length(64), z.string().length(64).nullable()]);

/** A last line may be torn by a power cut. */
function readJournal(file: string, { places }: Layout): (Sums | undefined)[] {
  const sums: (Sums | undefined)[] = [];
  for (const line of readFileSync(file, 'utf8').split('\n').slice(0, -1)) {
    const [index, values, scales] = journalLine.parse(JSON.parse(line));
    if (index < places.length) sums[index] = { values, scales };
  }
  return sums;
}

function isBegunWith(file: string, header: Buffer): boolean {
  if (!existsSync(file)) return false;
  const { fd, size } = openForReading(file);
  try {
    return size >= header.length && readAt(fd, file, 0, header.length).equals(header);
  } finally {
    closeSync(fd);
  }
}

const metadataSchema = z.object({ source: z.string(), sha256: z.string(), version: z.string() });

/** What the header of a prepared file says of itself. @throws CodedError MODEL_INVALID, MODEL_UNSUPPORTED */
export function readPreparedHeader(file: string): { source: string; sha256: Record<string, string> } {
  const { fd, size } = openForReading(file);
  try {
    const length = Number(readAt(fd, file, 0, Math.min(8, size)).readBigUInt64LE());
    const json = JSON.parse(readAt(fd, file, 8, Math.min(length, size)).toString('utf8')) as { __metadata__?: unknown };
    const { source, sha256, version } = metadataSchema.parse(json.__metadata__);
    if (version !== String(FORMAT_VERSION))
      throw new CodedError(
        'MODEL_UNSUPPORTED',
        `${file}: is of version ${version} of its format; remove the model and add it again`,
      );
    return { source, sha256: z.record(z.string(), z.string()).parse(JSON.parse(sha256)) };
  } catch (cause) {
    if (cause instanceof CodedError) throw cause;
    throw new CodedError('MODEL_INVALID', `${file}: is no prepared file: ${(cause as Error).message}`, { cause });
  } finally {
    closeSync(fd);
  }
}
