/** One end of a connection between two processes: typed requests, answers and notifications over framed messages. */
import type { Socket } from 'node:net';
import { CodedError, type ErrorObject, toCodedError } from '@qwen-supervisor/protocol/errors';
import type { Methods, Params, Result } from '@qwen-supervisor/protocol/messages';
import { encodeFrame, FrameDecoder } from './frames.js';

/** What this end answers. A handler that throws answers with the error. */
export type Handlers<M extends Methods> = {
  [K in keyof M]: (params: Params<M, K>) => Result<M, K> | Promise<Result<M, K>>;
};

/** Bytes that wait for a peer before its own messages are left unread until it has caught up. */
const PENDING_PAUSE = 1 << 20;
/** Bytes of notifications that may wait for one that does not read; then it is cut off, which it will notice. */
const NOTIFIED_MAX = 16 << 20;

type Message =
  | { id: number; method: string; params: unknown }
  | { method: string; params: unknown }
  | { id: number; result: unknown }
  | { id: number; error: ErrorObject };

interface Pending {
  resolve(result: unknown): void;
  reject(error: CodedError): void;
}

/** `Remote`: the methods that the peer answers. `Local`: the methods that this end answers. */
export class Link<Remote extends Methods, Local extends Methods> {
  /** Called once, when the connection is gone. */
  onClose: () => void = () => {};
  /** Called when a notification of the peer could not be handled; the connection is closed for it. */
  onFault: (error: Error) => void = () => {};
  readonly #socket: Socket;
  readonly #handlers: Handlers<Local>;
  readonly #decoder = new FrameDecoder();
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  /** Bytes of notifications since the peer last had caught up. */
  #notified = 0;
  #open = true;
  /** Who waits until the peer has caught up. */
  readonly #waiting: (() => void)[] = [];

  constructor(socket: Socket, handlers: (link: Link<Remote, Local>) => Handlers<Local>) {
    this.#socket = socket;
    socket.on('drain', () => {
      this.#notified = 0;
      socket.resume();
      this.#wake();
    });
    this.#handlers = handlers(this);
  }

  /** @throws CodedError of the peer's handler, or LINK_LOST */
  request<K extends keyof Remote & string>(method: K, params: Params<Remote, K>): Promise<Result<Remote, K>> {
    if (!this.#open) return Promise.reject(new CodedError('LINK_LOST'));
    const id = this.#nextId++;
    return new Promise<unknown>((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#write({ id, method, params });
    }) as Promise<Result<Remote, K>>;
  }

  /** Tells without waiting. Says nothing where the connection is gone: its owner hears of that through `onClose`. */
  notify<K extends keyof Remote & string>(method: K, params: Params<Remote, K>): void {
    this.#write({ method, params });
  }

  /** Whether more waits for the peer than it should. */
  isBehind(): boolean {
    return this.#open && this.#socket.writableLength > PENDING_PAUSE;
  }

  /** Resolves when the peer has taken what was sent, or is gone. */
  drained(): Promise<void> {
    if (!this.#open || !this.#socket.writableNeedDrain) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  close(): void {
    this.#socket.destroy();
  }

  /** Bytes from the transport. A peer that breaks the framing is cut off. */
  receive(chunk: Buffer): void {
    let messages: unknown[];
    try {
      messages = this.#decoder.push(chunk);
    } catch {
      this.close();
      return;
    }
    for (const message of messages) this.#dispatch(message as Message);
  }

  /** The transport is gone. */
  closed(): void {
    if (!this.#open) return;
    this.#open = false;
    for (const { reject } of this.#pending.values()) reject(new CodedError('LINK_LOST'));
    this.#pending.clear();
    this.#wake();
    this.onClose();
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  #write(message: Message): void {
    if (!this.#open || this.#socket.destroyed) return;
    const frame = encodeFrame(message);
    const flushed = this.#socket.write(frame);
    if (flushed) return;
    if (!('id' in message)) this.#notified += frame.length;
    if (this.#notified > NOTIFIED_MAX) return this.close();
    // Only who answers pauses: two ends that both did would wait for each other.
    const isAnswer = !('method' in message);
    if (isAnswer && this.#socket.writableLength > PENDING_PAUSE) this.#socket.pause();
  }

  #dispatch(message: Message): void {
    if (typeof message !== 'object' || message === null) this.close();
    else if ('method' in message) void this.#answer(message);
    else {
      const pending = this.#pending.get(message.id);
      this.#pending.delete(message.id);
      if ('error' in message) pending?.reject(CodedError.from(message.error));
      else pending?.resolve(message.result);
    }
  }

  async #answer(message: { id?: number; method: string; params: unknown }): Promise<void> {
    try {
      if (!Object.hasOwn(this.#handlers, message.method)) {
        throw new CodedError('INTERNAL', `the peer asked for the unknown method ${message.method}`);
      }
      const result = await this.#handlers[message.method as keyof Local](message.params as never);
      if (message.id !== undefined) this.#write({ id: message.id, result: result ?? null });
    } catch (error) {
      const coded = toCodedError(error);
      if (message.id !== undefined) this.#write({ id: message.id, error: coded.toObject() });
      else {
        // A notification has nobody to answer to. A peer that sends what cannot be handled is cut off, and starts anew.
        this.onFault(error as Error);
        this.close();
      }
    }
  }
}
