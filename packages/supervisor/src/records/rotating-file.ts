/** A file that grows by whole lines and is set aside when it is large: `file`, `file.1`, `file.2`, … */
import { closeSync, fstatSync, openSync, renameSync, writeSync } from 'node:fs';

export class RotatingFile {
  readonly #path: string;
  readonly #maxBytes: number;
  readonly #older: number;
  readonly #onLost: (lines: number, cause: Error) => string;
  /** Null once it is closed: a descriptor's number is given to other files. */
  #fd: number | null;
  #size: number;
  #lost: { lines: number; cause: Error } | null = null;

  /**
   * Keeps `older` generations of at most `maxBytes` each. `onLost` words the line that tells how many could not be
   * written, as soon as one can be again: a full disk costs lines, not the supervisor.
   * @throws Error of the file system where the file cannot be opened
   */
  constructor(path: string, maxBytes: number, older: number, onLost: (lines: number, cause: Error) => string) {
    this.#path = path;
    this.#maxBytes = maxBytes;
    this.#older = older;
    this.#onLost = onLost;
    const fd = openSync(path, 'a', 0o600);
    this.#fd = fd;
    this.#size = fstatSync(fd).size;
  }

  /** `line` ends with a newline. After `close` it is lost. */
  write(line: string): void {
    if (this.#fd === null) return;
    const lost = this.#lost;
    // The line that was lost may have been written in part.
    const bytes = Buffer.from(lost ? `\n${this.#onLost(lost.lines, lost.cause)}${line}` : line);
    try {
      if (this.#size > 0 && this.#size + bytes.length > this.#maxBytes) this.#rotate(this.#fd);
      const written = writeSync(this.#fd, bytes);
      this.#size += written;
      if (written < bytes.length) throw new Error('the disk is full');
      this.#lost = null;
    } catch (cause) {
      this.#lost = { lines: (lost?.lines ?? 0) + 1, cause: cause as Error };
    }
  }

  close(): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }

  #rotate(old: number): void {
    for (let generation = this.#older; generation > 0; generation--) {
      const from = generation === 1 ? this.#path : `${this.#path}.${generation - 1}`;
      try {
        renameSync(from, `${this.#path}.${generation}`);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      }
    }
    this.#fd = openSync(this.#path, 'a', 0o600);
    this.#size = 0;
    closeSync(old);
  }
}
