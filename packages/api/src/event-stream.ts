/** Server-sent events. Reference: WHATWG HTML, "Server-sent events". */
import type { NumberedEvent } from '@qwen-supervisor/protocol/events';
import type { FastifyReply } from 'fastify';

/** A comment line on an idle stream, so that proxies and clients see that it lives. */
const HEARTBEAT_MS = 15_000;
/** Bytes that wait for a reader before it is dropped; it comes back with Last-Event-ID and has missed nothing. */
const PENDING_MAX = 1 << 20;

export class EventStream {
  readonly #raw: FastifyReply['raw'];

  constructor(reply: FastifyReply, onClose: () => void) {
    // What hooks have set, the answer of a hijacked reply would not have.
    const headers = reply.getHeaders() as Record<string, string>;
    reply.hijack();
    this.#raw = reply.raw;
    this.#raw.writeHead(200, {
      ...headers,
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      // For nginx, which would keep events back to fill its buffer.
      'x-accel-buffering': 'no',
    });
    this.#raw.flushHeaders();
    const heartbeat = setInterval(() => this.write(': alive\n\n'), HEARTBEAT_MS);
    this.#raw.on('close', () => {
      clearInterval(heartbeat);
      onClose();
    });
  }

  /** Whole events, as `formatEvent` gives them. */
  write(text: string): void {
    if (this.#raw.destroyed) return;
    this.#raw.write(text);
    if (this.#raw.writableLength > PENDING_MAX) this.#raw.destroy();
  }

  send(name: string, data: unknown): void {
    this.write(formatEvent(name, data));
  }

  end(): void {
    this.#raw.end();
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
export function toText(event: NumberedEvent): string {
  const known = TEXTS.get(event);
  if (known !== undefined) return known;
  const parts = describe(event);
  const last = parts.length - 1;
  const text = parts.map(([name, data], i) => formatEvent(name, data, i === last ? idOf(event) : null)).join('');
  TEXTS.set(event, text);
  return text;
}

const TEXTS = new WeakMap<NumberedEvent, string>();

type Told = [name: string, data: unknown];

/** Names and fields of what clients are told of an event: a picture that is done is told before its job. */
function describe(event: NumberedEvent): Told[] {
  switch (event.type) {
    case 'step': {
      const { jobId: id, step: i, steps: n, eta } = event;
      return [['step', { id, i, n, eta, preview: event.preview && Buffer.from(event.preview).toString('base64') }]];
    }
    case 'running': {
      const { jobId: id, attempt, step, startedOverReason } = event;
      return [['running', { id, attempt, step, startedOverReason }]];
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
      return [['loading', { component, bytes, total }]];
    }
    case 'child': {
      const { name, state, pid, reason } = event;
      return [['child', { name, state, pid, reason }]];
    }
    case 'crash':
      return [['crash', event.crash]];
  }
}
