/**
 * Numbers that were computed once and are kept on disk: of the files together no more than so many bytes, the one that
 * was wanted last stays longest. A file that was damaged, or cannot be written, costs the time to compute it again.
 *
 * Layout: float32, little-endian; SHA-256 of them (32 bytes).
 */
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

const SUM_BYTES = 32;
/** Left free on the disk: jobs and pictures need it more. */
const ROOM_BYTES = 500e6;

export class FloatCache {
  readonly #folder: string;
  readonly #maxBytes: number;
  /** Bytes of all files; unknown before the first is written. */
  #bytes: number | null = null;
  /** The last file could not be written. */
  #failing = false;

  constructor(folder: string, maxBytes: number) {
    this.#folder = folder;
    this.#maxBytes = maxBytes;
  }

  /** Whether it is there; what is in it is seen when it is read. */
  has(key: string): boolean {
    return existsSync(this.#file(key));
  }

  get(key: string): Float32Array | null {
    const file = this.#file(key);
    const bytes = readIfThere(file);
    if (!bytes) return null;
    const values = bytes.subarray(0, Math.max(0, bytes.length - SUM_BYTES));
    if (!digest(values).equals(bytes.subarray(values.length))) {
      this.#quietly(file, () => rmSync(file, { force: true }));
      return null;
    }
    const now = new Date();
    this.#quietly(file, () => utimesSync(file, now, now));
    return new Float32Array(values.buffer.slice(values.byteOffset, values.byteOffset + values.length));
  }

  /** Whether it is kept now. */
  put(key: string, values: Float32Array): boolean {
    const bytes = Buffer.from(values.buffer, values.byteOffset, values.byteLength);
    const file = this.#file(key);
    const temporary = `${file}.${process.pid}.tmp`;
    const kept = this.#quietly(file, () => {
      mkdirSync(this.#folder, { recursive: true });
      const { bavail, bsize } = statfsSync(this.#folder);
      if (bavail * bsize < ROOM_BYTES + bytes.length) return false;
      writeFileSync(temporary, Buffer.concat([bytes, digest(bytes)]));
      renameSync(temporary, file);
      this.#bytes = this.#bytes === null ? null : this.#bytes + bytes.length + SUM_BYTES;
      if (this.#bytes === null || this.#bytes > this.#maxBytes) this.#removeOldest(file);
      return true;
    });
    // What a disk that is full has taken of it.
    if (kept === null && existsSync(temporary)) this.#quietly(file, () => rmSync(temporary, { force: true }));
    return kept ?? false;
  }

  /**
   * It is an ornament: a disk that is full or cannot be written, a folder that somebody empties meanwhile, is told
   * once. Null then.
   */
  #quietly<T>(file: string, act: () => T): T | null {
    try {
      const result = act();
      this.#failing = false;
      return result;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === undefined) throw error;
      if (!this.#failing) console.error(`${file}: not kept: ${(error as Error).message}`);
      this.#failing = true;
      return null;
    }
  }

  /** All but `current`, the oldest first, until the rest is small enough. */
  #removeOldest(current: string): void {
    const files = readdirSync(this.#folder)
      .filter((name) => /\.(f32|tmp)$/.test(name))
      .map((name) => join(this.#folder, name))
      .map((file) => ({ file, ...sizeAndAge(file) }))
      .sort((a, b) => a.mtimeMs - b.mtimeMs);
    this.#bytes = files.reduce((sum, { size }) => sum + size, 0);
    for (const { file, size } of files) {
      if (this.#bytes <= this.#maxBytes) return;
      if (file === current) continue;
      rmSync(file, { force: true });
      this.#bytes -= size;
    }
  }

  #file(key: string): string {
    return join(this.#folder, `${createHash('sha256').update(key).digest('hex').slice(0, 40)}.f32`);
  }
}

function digest(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}

/** Null for a file that is not there, or cannot be read: another worker may have removed it. */
function readIfThere(file: string): Buffer | null {
  try {
    return readFileSync(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    return null;
  }
}

function sizeAndAge(file: string): { size: number; mtimeMs: number } {
  const { size, mtimeMs } = statSync(file);
  return { size, mtimeMs };
}
