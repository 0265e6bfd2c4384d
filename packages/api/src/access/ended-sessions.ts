/**
 * Sessions that their owners have ended. What stands for a session is signed and not remembered anywhere; only its end
 * has to be.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { readRegular } from '@qwen-supervisor/files/read-regular';
import { replaceFile } from '@qwen-supervisor/files/replace-file';
import { z } from 'zod';

const FILE = 'ended-sessions.json';
const BYTES_MAX = 4 << 20;
/** The oldest are forgotten first: nobody signs out so often. */
const KEPT_MAX = 10_000;

/** By a digest, when it would have ended anyway, in milliseconds since 1970. */
const fileSchema = z.record(z.string(), z.number());

export class EndedSessions {
  readonly #path: string;
  readonly #ended: Map<string, number>;
  #written: Promise<void> = Promise.resolve();

  constructor(dataDir: string) {
    this.#path = join(dataDir, FILE);
    this.#ended = new Map(Object.entries(read(this.#path)));
  }

  has(session: string): boolean {
    return this.#ended.has(digest(session));
  }

  /** Resolves when it is on the disk. @throws Error of the file system */
  async end(session: string, expiresMs: number): Promise<void> {
    this.#ended.set(digest(session), expiresMs);
    for (const [one, untilMs] of this.#ended) {
      if (untilMs < Date.now() || this.#ended.size > KEPT_MAX) this.#ended.delete(one);
    }
    const write = () => replaceFile(this.#path, Buffer.from(JSON.stringify(Object.fromEntries(this.#ended))));
    this.#written = this.#written.then(write, write);
    await this.#written;
  }
}

/** A file that is not there, or is damaged, ends no session. */
function read(path: string): Record<string, number> {
  try {
    return fileSchema.parse(JSON.parse(readRegular(path, BYTES_MAX).bytes.toString('utf8')));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') console.error(`${FILE}: ${(error as Error).message}`);
    return {};
  }
}

function digest(session: string): string {
  return createHash('sha256').update(session).digest('base64url');
}
