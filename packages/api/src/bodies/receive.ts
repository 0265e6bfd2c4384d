/**
 * Bodies as they come in. All of them together have a budget: a client costs what it sends, until what it sent has been
 * looked into, and not what it says that it will send.
 */
import type { Readable } from 'node:stream';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { FastifyReply, FastifyRequest } from 'fastify';

/** Bytes of all bodies together; more where a single one may be larger. */
const BUDGET_BYTES = 256 << 20;
/** Bytes of a body that always finds a place. */
const SMALL = 64 << 10;
/** By then some have been looked into, or given up. */
const BUSY_SECONDS = 5;

/** What one request has taken of the budget. */
export interface Received {
  /** @throws CodedError SERVER_BUSY */
  take(bytes: number): void;
  /** The body is no longer held. */
  release(): void;
  /** Whoever looks into it holds it, also where its client has gone away. */
  isHeld: boolean;
}

declare module 'fastify' {
  interface FastifyRequest {
    received: Received;
  }
}

/** Gives each request its share, and takes it back at the latest when it has been answered. */
export class BodyBudget {
  readonly #max: number;
  #taken = 0;

  constructor(largestBody: number) {
    this.#max = Math.max(BUDGET_BYTES, 2 * largestBody);
  }

  open(): Received {
    let own = 0;
    return {
      isHeld: false,
      take: (bytes) => {
        // What is small is taken whatever others send: there are only so many connections.
        if (own + bytes > SMALL && this.#taken + bytes > this.#max)
          throw new CodedError('SERVER_BUSY', undefined, { retryAfterSeconds: BUSY_SECONDS });
        own += bytes;
        this.#taken += bytes;
      },
      release: () => {
        this.#taken -= own;
        own = 0;
      },
    };
  }
}

/** A whole stream of at most `max` bytes. @throws CodedError BODY_TOO_LARGE, BODY_INVALID, SERVER_BUSY */
export function receive(stream: Readable, { received }: FastifyRequest, max: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  return new Promise((resolve, reject) => {
    const onData = (chunk: Buffer) => {
      try {
        length += chunk.length;
        if (length > max) throw new CodedError('BODY_TOO_LARGE');
        received.take(chunk.length);
        chunks.push(chunk);
      } catch (error) {
        stream.off('data', onData);
        chunks.length = 0;
        reject(error);
      }
    };
    stream.on('data', onData);
    stream.on('end', () => resolve(Buffer.concat(chunks)));
    stream.on('close', () => reject(new CodedError('BODY_INVALID', 'the body ended early')));
    stream.on('error', (cause) => reject(new CodedError('BODY_INVALID', cause.message, { cause })));
  });
}

/** What is left of the body of a request that is refused is not waited for. */
export function hangUp(reply: FastifyReply): void {
  reply.header('connection', 'close');
}
