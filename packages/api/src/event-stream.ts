/** Server-sent events. Reference: WHATWG HTML, "Server-sent events". */
import type { NumberedEvent } from '@qwen-supervisor/protocol/events';
import type { FastifyReply } from 'fastify';

/** A comment line on an idle stream, so that proxies and clients see that it lives. */
const HEARTBEAT_MS = 15_000;
/**
 * Bytes that wait for a listener before it is dropped; it comes back with Last-Event-ID and has missed nothing. More
 * than all that can be replayed. What waits is shared: the bytes of an event are there once, however many listen.
 */
const PENDING_MAX = 16 << 20;
/** Bytes that are given to the connection at once: how fast it takes them tells whether anybody reads. */
const PIECE = 64 << 10;

export interface StreamLimits {
  pendingMax?: number;
  heartbeatMs?: number;
}

/** Those of this process that may still be written to. */
const open = new Set<EventStream>();

/** Before this process ends: else it would wait for clients that only listen. */
export function endStreams(): void {
  for (const stream of open) stream.end();
}

export class EventStream {
  readonly #raw: FastifyReply['raw'];
  readonly #onEnd: () => void;
  readonly #pendingMax: number;
  readonly #heartbeat: NodeJS.Timeout | undefined;
  #queue: Uint8Array[] = [];
  #pending = 0;
  #ending = false;
  /** What the client had taken at the last heartbeat. */
  #taken = 0;

  /**
   * `onEnd` is called once nothing more can be sent: the client is gone, or was told all. A stream of pictures may be
   * as large as they are.
   */
  constructor(reply: FastifyReply, onEnd: () => void, limits: StreamLimits = {}) {
    // What hooks have set, the answer of a hijacked reply would not have.
    const headers = reply.getHeaders() as Record<string, string>;
    reply.hijack();
    this.#raw = reply.raw;
    this.#onEnd = onEnd;
    this.#pendingMax = limits.pendingMax ?? PENDING_MAX;
    if (this.#raw.destroyed) {
      // The client left while its request was looked into. Who made the stream is still about to use it.
      this.#ending = true;
      queueMicrotask(onEnd);
      return;
    }
    // Whatever goes wrong with the connection, 'close' follows.
    this.#raw.on('error', () => {});
    this.#raw.on('drain', () => this.#flush());
    open.add(this);
    this.#raw.on('close', () => {
      open.delete(this);
      clearInterval(this.#heartbeat);
      this.#stop();
    });
    this.#raw.writeHead(200, {
      ...headers,
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      // For nginx, which would keep events back to fill its buffer.
      'x-accel-buffering': 'no',
    });
    this.#raw.flushHeaders();
    this.#heartbeat = setInterval(() => this.#beat(), limits.heartbeatMs ?? HEARTBEAT_MS);
  }

  /** Whole events, as `formatEvent` gives them. */
  write(events: string | Buffer): void {
    if (this.#ending) return;
    const bytes = typeof events === 'string' ? Buffer.from(events) : events;
    for (let at = 0; at < bytes.length; at += PIECE) this.#queue.push(bytes.subarray(at, at + PIECE));
    this.#pending += bytes.length;
    this.#flush();
    if (this.#pending > this.#pendingMax) this.#raw.destroy();
  }

  send(name: string, data: unknown): void {
    this.write(formatEvent(name, data));
  }

  /** After what still waits. */
  end(): void {
    this.#stop();
    this.#flush();
  }

  #stop(): void {
    if (this.#ending) return;
    this.#ending = true;
    this.#onEnd();
  }

  /** Only as fast as the client takes it. */
  #flush(): void {
    const { destroyed, writableEnded } = this.#raw;
    if (destroyed || writableEnded) return;
    while (this.#queue.length > 0 && !this.#raw.writableNeedDrain) {
      const piece = this.#queue.shift() as Uint8Array;
      this.#pending -= piece.length;
      this.#raw.write(piece);
    }
    if (this.#ending && this.#queue.length === 0) this.#raw.end();
  }

  #beat(): void {
    const taken = this.#raw.socket?.bytesWritten ?? 0;
    const waiting = this.#raw.writableLength > 0 || this.#queue.length > 0;
    // Something waits, and nothing has been taken since the last time.
    if (waiting && taken === this.#taken) this.#raw.destroy();
    else this.write(': alive\n\n');
    this.#taken = taken;
  }
}

export function formatEvent(name: string | null, data: unknown, id: string | null = null): string {
  const head = (id === null ? '' : `id: ${id}\n`) + (name === null ? '' : `event: ${name}\n`);
  return `${head}data: ${JSON.stringify(data)}\n\n`;
}

/** Names an event across restarts of every process: the supervisor's run, and a number in it. */
export function idOf({ run, seq }: { run: string; seq: number }): string {
  return `${run}-${seq}`;
}

/** The number in an id of this run; null for any other text. */
export function seqOf(id: string, run: string): number | null {
  const [, of, seq] = /^([0-9a-f]+)-(\d{1,15})$/.exec(id) ?? [];
  return of === run ? Number(seq) : null;
}

/** An event as listeners read it; formatted once, however many listen. */
export function toBytes(event: NumberedEvent): Buffer {
  const known = FORMATTED.get(event);
  if (known) return known;
  const parts = describe(event);
  const last = parts.length - 1;
  const text = parts.map(([name, data], i) => formatEvent(name, data, i === last ? idOf(event) : null)).join('');
  const bytes = Buffer.from(text);
  FORMATTED.set(event, bytes);
  return bytes;
}

const FORMATTED = new WeakMap<NumberedEvent, Buffer>();

type Told = [name: string, data: unknown];

/** Names and fields of what clients are told of an event: a picture that is done is told before its job. */
function describe(event: NumberedEvent): Told[] {
  switch (event.type) {
    case 'step': {
      const { jobId: id, step: i, steps: n, eta } = event;
      return [['step', { id, i, n, eta, preview: event.preview && Buffer.from(event.preview).toString('base64') }]];
    }
    case 'progress': {
      const { jobId: id, step: i, steps: n, progress, eta } = event;
      return [['progress', { id, i, n, progress, eta }]];
    }
    case 'running': {
      const { jobId: id, attempt, step, startedOverReason, device, machine, model } = event;
      return [['running', { id, attempt, step, startedOverReason, device, machine, model }]];
    }
    case 'requeued': {
      const { jobId: id, attempt, step, reason } = event;
      return [['requeued', { id, attempt, step, reason }]];
    }
    case 'decoding':
      return [['decoding', { id: event.jobId }]];
    case 'done':
      return [...event.job.images.map((image): Told => ['image', { ...image, job: event.jobId }]), ['done', event.job]];
    case 'failed':
      return [['failed', { ...event.job, code: event.job.error?.code }]];
    case 'queued':
    case 'moved':
    case 'cancelled':
      return [[event.type, event.job]];
    case 'load': {
      const { component, bytesDone: bytes, bytesTotal: total } = event.progress;
      return [['loading', { child: event.name, component, bytes, total }]];
    }
    case 'child': {
      const { name, state, pid, reason } = event;
      return [['child', { name, state, pid, reason }]];
    }
    case 'crash':
      return [['crash', event.crash]];
    case 'pictures':
      return [['pictures', { ids: event.ids, change: event.change }]];
    case 'machines':
      return [['machines', { machines: event.machines }]];
  }
}
