/**
 * The connections of a server: how many there may be, and how long one may do nothing. Who says nothing, sends a body
 * drop by drop or does not read its answer gives its place back; where places run out, those who use theirs keep them.
 */
import { type IncomingMessage, type Server, STATUS_CODES } from 'node:http';
import { isIP, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { CodedError, ERRORS, type ErrorCode } from '@qwen-supervisor/protocol/errors';

/** What every answer carries, also one to what never became a request. */
export const ALWAYS = {
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'x-frame-options': 'DENY',
} as const;

/** From one look at all connections to the next. */
const LOOK_MS = 1000;
/** A body may begin slowly; from then on it must come at this many bytes a second. */
const BODY_GRACE_MS = 15_000;
const BODY_BYTES_PER_SECOND = 16 << 10;
/** An answer of which nothing is read for this long is not waited for, nor is a next request. */
const UNREAD_MS = 30_000;
/**
 * What answers promise of a connection (`Keep-Alive: timeout=20`): less than it is kept, so that a request that sets
 * out at the last moment still finds it open.
 */
const PROMISED_MS = 20_000;
/** Requests that a client may have sent at once and still be taken for one that waits. */
const ASKED_MAX = 8;
/** What is said to a broken request must be read within this. */
const GOODBYE_MS = 1000;

interface Connection {
  readonly socket: Socket;
  readonly address: string;
  /** Requests that are not answered yet; HTTP lets a client send several. */
  unanswered: number;
  /** The request whose body is still coming, when it began, and what had been read by then. */
  body: Body | null;
  /** When it last had something to answer, or came. */
  idleSinceMs: number;
}

interface Body {
  request: IncomingMessage;
  sinceMs: number;
  bytesBefore: number;
  /** What had been read when that last changed. */
  moved: { bytes: number; atMs: number };
}

/** @param max connections at once; one address may hold half of them */
export function watchConnections(server: Server, max: number): void {
  const open = new Map<Socket, Connection>();
  const perAddress = Math.max(1, Math.floor(max / 2));
  const of = (address: string) => [...open.values()].filter((connection) => connection.address === address);
  let looking: NodeJS.Timeout | undefined;

  server.on('connection', (socket: Socket) => {
    const nowMs = performance.now();
    const address = neighbourhood(socket.remoteAddress ?? '');
    const rivals = of(address).length >= perAddress ? of(address) : open.size >= max ? [...open.values()] : null;
    if (rivals) {
      const victim = leastUsed(rivals);
      if (!victim) return void socket.destroy();
      victim.socket.destroy();
      open.delete(victim.socket);
    }
    open.set(socket, { socket, address, unanswered: 0, body: null, idleSinceMs: nowMs });
    looking ??= setInterval(() => look(performance.now()), LOOK_MS).unref();
    socket.on('close', () => {
      open.delete(socket);
      if (open.size > 0) return;
      clearInterval(looking);
      looking = undefined;
    });
  });

  // Node knows whether a write goes on; its clock ends also what is kept open for a next request.
  server.timeout = UNREAD_MS;
  server.keepAliveTimeout = PROMISED_MS;
  server.on('timeout', (socket: Socket) => {
    const { bytesRead } = socket;
    // A request that came while this process was busy with others is read first.
    setImmediate(() => {
      const { unanswered = 0, idleSinceMs = 0 } = open.get(socket) ?? {};
      const idleMs = performance.now() - idleSinceMs;
      if (unanswered > 0 && socket.writableLength > 0) socket.destroy();
      else if (unanswered > 0 || socket.bytesRead > bytesRead) return;
      else if (idleMs < UNREAD_MS && socket.writableLength === 0) socket.setTimeout(Math.ceil(UNREAD_MS - idleMs));
      else socket.destroy();
    });
  });

  server.on('request', (request, response) => {
    const connection = open.get(request.socket);
    if (!connection) return;
    connection.unanswered++;
    if (!request.complete && hasBody(request)) {
      const [sinceMs, bytesBefore] = [performance.now(), request.socket.bytesRead];
      const body = { request, sinceMs, bytesBefore, moved: { bytes: bytesBefore, atMs: sinceMs } };
      connection.body = body;
      request.on('close', () => {
        if (connection.body === body) connection.body = null;
      });
    }
    response.on('close', () => {
      connection.unanswered--;
      connection.idleSinceMs = performance.now();
      // A server that closes has ended those that were idle; this one is kept for a next request that will not come.
      if (!server.listening && connection.unanswered === 0) connection.socket.end();
    });
  });

  function look(nowMs: number): void {
    for (const { socket, body } of open.values()) {
      if (body && !body.request.complete && isTooSlow(socket, body, nowMs))
        sayGoodbye(socket, new CodedError('REQUEST_TIMEOUT'));
    }
  }
}

/** Who is counted as one: of IPv6 a whole /64, which is what one subscriber has. */
function neighbourhood(address: string): string {
  const mapped = address.replace(/^::ffff:(?=\d+\.)/, '');
  if (isIP(mapped) !== 6) return mapped;
  const [head = '', tail] = mapped.split('::');
  const before = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = Array.from({ length: Math.max(0, 8 - before.length - after.length) }, () => '0');
  return [...before, ...zeros, ...after].slice(0, 4).join(':');
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}

/** On the whole, and since it last came: what was fast at first may not stand still for it. */
function isTooSlow({ bytesRead }: Socket, body: Body, nowMs: number): boolean {
  const { sinceMs, bytesBefore, moved } = body;
  if (bytesRead !== moved.bytes) body.moved = { bytes: bytesRead, atMs: nowMs };
  else if (nowMs - moved.atMs > BODY_GRACE_MS) return true;
  return nowMs - sinceMs > BODY_GRACE_MS + (1000 * (bytesRead - bytesBefore)) / BODY_BYTES_PER_SECOND;
}

/**
 * Who makes room for a newcomer: the longest idle one of the address that has most, then one whose request has not come
 * in whole. Null where all wait for an answer.
 */
function leastUsed(rivals: readonly Connection[]): Connection | null {
  const counts = new Map<string, number>();
  for (const { address } of rivals) counts.set(address, (counts.get(address) ?? 0) + 1);
  const rank = ({ address, unanswered }: Connection) => [unanswered === 0 ? 0 : 1, -(counts.get(address) ?? 0)];
  // Who has asked and waits for one answer, or a few, keeps its place; not who does not read them.
  const uses = ({ socket, unanswered, body }: Connection) =>
    unanswered > 0 && unanswered <= ASKED_MAX && !body && socket.writableLength === 0;
  const [victim] = rivals
    .filter((connection) => !uses(connection))
    .sort((a, b) => {
      const [stateA = 0, countA = 0] = rank(a);
      const [stateB = 0, countB = 0] = rank(b);
      return stateA - stateB || countA - countB || a.idleSinceMs - b.idleSinceMs;
    });
  return victim ?? null;
}

/** What Node says of requests that never became one. */
const BROKEN: Record<string, ErrorCode> = {
  ERR_HTTP_REQUEST_TIMEOUT: 'REQUEST_TIMEOUT',
  HPE_HEADER_OVERFLOW: 'HEADERS_TOO_LARGE',
};

/** What is not HTTP, comes too slowly, or has headers beyond Node's limit, never becomes a request. */
export function answerBrokenRequest(error: NodeJS.ErrnoException, socket: Duplex): void {
  const code = BROKEN[error.code ?? ''];
  sayGoodbye(
    socket,
    code ? new CodedError(code) : new CodedError('REQUEST_INVALID', `not valid HTTP: ${error.message}`),
  );
}

/** Says why, and closes: the other end may never do it. */
function sayGoodbye(socket: Duplex, error: CodedError): void {
  if (!socket.writable) return void socket.destroy();
  const body = JSON.stringify({ error: error.toObject() });
  const { http } = ERRORS[error.code];
  const headers = {
    'content-type': 'application/json; charset=utf-8',
    connection: 'close',
    'content-length': Buffer.byteLength(body),
    ...ALWAYS,
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${http} ${STATUS_CODES[http]}\r\n${lines.join('')}\r\n${body}`, () => socket.destroy());
  setTimeout(() => socket.destroy(), GOODBYE_MS).unref();
}
