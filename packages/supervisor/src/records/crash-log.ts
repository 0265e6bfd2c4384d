/** The record of unplanned exits, kept across runs of the supervisor: JSON lines in the data folder. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Crash } from '@qwen-supervisor/protocol/status';
import { RotatingFile } from './rotating-file.js';

const MAX_BYTES = 2 << 20;

function crashFile(dataDir: string): string {
  return join(dataDir, 'logs', 'crashes.jsonl');
}

/** Crashes that are kept at hand. */
const AT_HAND = 50;

export class CrashLog {
  readonly #file: RotatingFile;
  #newest: Crash[];

  constructor(dataDir: string) {
    this.#newest = readCrashes(dataDir, AT_HAND).reverse();
    this.#file = new RotatingFile(crashFile(dataDir), MAX_BYTES, 1, () => '');
  }

  /** The last ones, newest first. */
  get newest(): readonly Crash[] {
    return this.#newest;
  }

  add(crash: Crash): void {
    this.#newest = [crash, ...this.#newest].slice(0, AT_HAND);
    this.#file.write(`${JSON.stringify(crash)}\n`);
  }

  close(): void {
    this.#file.close();
  }
}

/** The last `count` crashes, oldest first. A line that a full disk has cut off is left out. */
export function readCrashes(dataDir: string, count: number): Crash[] {
  const file = crashFile(dataDir);
  const lines = [`${file}.1`, file].flatMap((path) => read(path).split('\n')).filter((line) => line !== '');
  return lines
    .slice(-count)
    .map(parse)
    .filter((crash) => crash !== null);
}

function parse(line: string): Crash | null {
  try {
    // Records of earlier versions have no threads.
    return { threads: [], ...(JSON.parse(line) as Omit<Crash, 'threads'>) };
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}
