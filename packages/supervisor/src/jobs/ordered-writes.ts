/**
 * What was decided reaches the store in the order in which it was decided; while the disk is full, or the database
 * away, it waits, and everything after it. A disk that hangs stops the event loop: libsql is synchronous.
 */
import { CodedError, type ErrorCode } from '@qwen-supervisor/protocol/errors';
import type { Logger } from 'pino';

/** From one try to the next. */
const RETRY_MS = 1000;

/** What may be there again a moment later. */
const AWAY: ErrorCode[] = ['DISK_FULL', 'STORE_UNREACHABLE', 'STORE_SCHEMA_OLD', 'SHARED_FOLDER_UNREACHABLE'];

export interface WriteHooks {
  /** What to call it where the operation that failed so may succeed later; null where it will not. */
  whenAway(error: unknown): ErrorCode | null;
  onWritten(): void;
  /** The store failed in mid-operation: nothing it would say from now on is sure to be true. */
  onFailure(error: CodedError): void;
}

export class OrderedWrites {
  readonly #what: string;
  readonly #log: Logger;
  /** Of those who ask, and whose turn has not come: tells them that it will not. */
  readonly #asking = new Set<(problem: CodedError) => void>();
  readonly #hooks: WriteHooks;
  #tail: Promise<unknown> = Promise.resolve();
  #problem: CodedError | null = null;
  #closing = false;

  /** `what` is written: as a message names it. */
  constructor(what: string, log: Logger, hooks: WriteHooks) {
    this.#what = what;
    this.#log = log;
    this.#hooks = hooks;
  }

  /** Why operations wait; null if they do not. */
  get problem(): string | null {
    return this.#problem?.message ?? null;
  }

  /** Resolves when it is written. @throws CodedError JOB_STORE_UNUSABLE, of which `onFailure` hears, too */
  add<T>(operation: () => Promise<T>): Promise<T> {
    const written = this.#tail.then(() => this.#persist(operation));
    const result = written.catch((cause: unknown) => {
      throw new CodedError('JOB_STORE_UNUSABLE', (cause as Error).message, { cause });
    });
    this.#tail = result.catch((error: CodedError) => this.#hooks.onFailure(error));
    return result;
  }

  /**
   * What a client asks for: it is told at once where the store does not take it, and nothing is written later.
   * @throws CodedError DISK_FULL, STORE_UNREACHABLE, JOB_STORE_UNUSABLE
   */
  ask<T>(operation: () => Promise<T>): Promise<T> {
    const { code, message } = this.#problem ?? {};
    if (code) return Promise.reject(new CodedError(code, message));
    return new Promise<T>((resolve, reject) => {
      let isRefused = false;
      const refuse = ({ code, message }: CodedError) => {
        isRefused = true;
        this.#asking.delete(refuse);
        reject(new CodedError(code, message));
      };
      this.#asking.add(refuse);
      const act = async () => {
        this.#asking.delete(refuse);
        if (isRefused) return () => {};
        try {
          const result = await operation();
          return () => resolve(result);
        } catch (cause) {
          const code = this.#codeOf(cause);
          if (code === null) throw cause;
          return () => reject(new CodedError(code, `${this.#what}: ${(cause as Error).message}`, { cause }));
        }
      };
      // When it is known that it was written, and not before.
      this.add(act).then((tell) => tell(), reject);
    });
  }

  /**
   * What an engine throws at a client's question, in our words. @throws CodedError DISK_FULL, STORE_UNREACHABLE,
   * JOB_STORE_UNUSABLE
   */
  inOurErrors<T>(operation: Promise<T>): Promise<T> {
    return operation.catch((cause: unknown) => {
      if (cause instanceof CodedError) throw cause;
      const code = this.#codeOf(cause) ?? 'JOB_STORE_UNUSABLE';
      throw new CodedError(code, `the job database: ${(cause as Error).message}`, { cause });
    });
  }

  /** What nobody waits for. */
  later(operation: () => Promise<unknown>): void {
    this.add(operation).catch(() => 'told by onFailure');
  }

  /** After the operations that are under way; only this gives up those that wait. */
  async close(): Promise<void> {
    this.#closing = true;
    // An operation may add another one.
    let awaited: unknown = null;
    while (awaited !== this.#tail) {
      awaited = this.#tail;
      await awaited;
    }
  }

  /** What was put into our words on the way is so still. */
  #codeOf(error: unknown): ErrorCode | null {
    if (!(error instanceof CodedError)) return this.#hooks.whenAway(error);
    return AWAY.includes(error.code) ? error.code : null;
  }

  async #persist<T>(operation: () => Promise<T>): Promise<T> {
    for (;;) {
      // What is away is not waited for once more, operation after operation.
      if (this.#closing && this.#problem) throw this.#problem;
      try {
        const result = await operation();
        this.#hooks.onWritten();
        if (this.#problem !== null) this.#log.info(`${this.#what} can be written again`);
        this.#problem = null;
        return result;
      } catch (error) {
        const code = this.#codeOf(error);
        if (code === null || this.#closing) throw error;
        const message = `${this.#what} cannot be written: ${(error as Error).message}`;
        if (this.#problem === null) this.#log.error({ code }, `${message}; trying on`);
        this.#problem = new CodedError(code, message);
        for (const refuse of this.#asking) refuse(this.#problem);
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }
}
