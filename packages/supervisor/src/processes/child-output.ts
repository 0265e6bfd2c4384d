/**
 * What a child prints: cut into lines, limited in rate with the drops counted, and its end kept for the record of a
 * crash. Bounded in memory whatever the child does.
 */

/** Longest line that is kept, characters; the rest of it is dropped. */
const LINE_MAX = 8192;
/** Lines in a row that are always kept, and lines per second after that. */
const BURST = 1000;
const PER_SECOND = 200;
/** The end that is kept. */
const TAIL_LINES = 40;
const TAIL_CHARACTERS = 16_384;

export class ChildOutput {
  readonly #onLine: (stream: 'stdout' | 'stderr', line: string) => void;
  readonly #onDropped: (lines: number) => void;
  readonly #tail: string[] = [];
  #tailLength = 0;
  #allowance = BURST;
  #refilledAtMs: number;
  #dropped = 0;

  constructor(
    onLine: (stream: 'stdout' | 'stderr', line: string) => void,
    onDropped: (lines: number) => void,
    nowMs: number,
  ) {
    this.#onLine = onLine;
    this.#onDropped = onDropped;
    this.#refilledAtMs = nowMs;
  }

  /** The last lines, oldest first. */
  get tail(): string[] {
    return [...this.#tail];
  }

  line(stream: 'stdout' | 'stderr', line: string, nowMs: number): void {
    this.#keep(line);
    const refill = ((nowMs - this.#refilledAtMs) / 1000) * PER_SECOND;
    this.#allowance = Math.min(BURST, this.#allowance + refill);
    this.#refilledAtMs = nowMs;
    if (this.#allowance < 1) {
      this.#dropped++;
      return;
    }
    this.#allowance--;
    this.tellDropped();
    this.#onLine(stream, line);
  }

  /** Says how many lines were dropped since it last did; also to be called at the end. */
  tellDropped(): void {
    if (this.#dropped > 0) this.#onDropped(this.#dropped);
    this.#dropped = 0;
  }

  #keep(line: string): void {
    this.#tail.push(line);
    this.#tailLength += line.length;
    while (this.#tail.length > 1 && (this.#tail.length > TAIL_LINES || this.#tailLength > TAIL_CHARACTERS)) {
      this.#tailLength -= (this.#tail.shift() as string).length;
    }
  }
}

/** Calls `onLine` for every line; resolves when the stream has ended. */
export function readLines(stream: NodeJS.ReadableStream, onLine: (line: string) => void): Promise<void> {
  let pending = '';
  let dropping = false;
  stream.setEncoding('utf8');
  stream.on('data', (chunk: string) => {
    const parts = chunk.split('\n');
    parts.forEach((part, index) => {
      const ends = index < parts.length - 1;
      if (!dropping) pending += part;
      if (pending.length > LINE_MAX) {
        pending = `${pending.slice(0, LINE_MAX)} …`;
        dropping = true;
      }
      if (!ends) return;
      if (pending !== '') onLine(pending);
      pending = '';
      dropping = false;
    });
  });
  return new Promise((resolve) => {
    stream.on('close', () => {
      if (pending !== '') onLine(pending);
      resolve();
    });
  });
}
