/** The HTTP application. One file per dialect; errors leave through one door. */
import type { IncomingHttpHeaders } from 'node:http';
import type { Duplex } from 'node:stream';
import { CodedError, ERRORS, type ErrorCode, toCodedError } from '@qwen-supervisor/protocol/errors';
import fastify, { type FastifyError, type FastifyInstance, type FastifyReply } from 'fastify';
import type { Backend } from './backend.js';
import { healthRoutes } from './health-routes.js';
import { jobRoutes } from './job-routes.js';
import { openaiRoutes, toOpenaiError } from './openai-routes.js';

/** Bytes of a body. */
const BODY_MAX = 4 << 20;

export function buildApp(backend: Backend): FastifyInstance {
  const app = fastify({
    logger: false,
    bodyLimit: BODY_MAX,
    forceCloseConnections: true,
    // Longer ids are simply not there.
    routerOptions: { maxParamLength: 16_384 },
    http: { requireHostHeader: false },
    frameworkErrors: (error, request, reply) => answerError(error, request.url, reply),
    clientErrorHandler: answerBrokenRequest,
  });
  app.addHook('onRequest', async ({ headers }) => refuseForeigners(headers));

  // JSON whatever the Content-Type says: clients that forget it, curl first among them, mean JSON.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'string' }, (_request, body, done) => {
    try {
      // Routes that need no body get none; those that need one say so.
      done(null, body === '' ? undefined : JSON.parse(body as string));
    } catch (cause) {
      done(new CodedError('BODY_INVALID', `the body is not JSON: ${(cause as Error).message}`, { cause }));
    }
  });

  app.setErrorHandler((error: FastifyError | Error, request, reply) => answerError(error, request.url, reply));
  app.setNotFoundHandler((request) => {
    throw new CodedError('NOT_FOUND', `there is nothing at ${request.method} ${request.url.slice(0, 200)}`);
  });

  healthRoutes(app, backend);
  jobRoutes(app, backend);
  openaiRoutes(app, backend);
  return app;
}

function answerError(error: FastifyError | Error, url: string, reply: FastifyReply) {
  const coded = fromFastify(error);
  if (coded.code === 'INTERNAL') console.error(error);
  const body = url.startsWith('/v1/') ? toOpenaiError(coded) : { error: coded.toObject() };
  if (coded.retryAfterSeconds !== undefined) reply.header('retry-after', coded.retryAfterSeconds);
  return reply.status(ERRORS[coded.code].http).send(body);
}

/** What is not HTTP, or has headers beyond Node's limit, never becomes a request. */
function answerBrokenRequest(error: Error, socket: Duplex): void {
  const body = JSON.stringify({
    error: new CodedError('REQUEST_INVALID', `not valid HTTP: ${error.message}`).toObject(),
  });
  const head = `HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}`;
  if (socket.writable) socket.end(`${head}\r\nconnection: close\r\n\r\n${body}`);
  else socket.destroy();
}

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/;

/**
 * A page of another site may send requests to loopback, and a name that it controls may lead here (DNS rebinding).
 * @throws CodedError ORIGIN_REFUSED
 */
function refuseForeigners({ host, origin }: IncomingHttpHeaders): void {
  const foreign = [host && `http://${host}`, origin].find(
    (url) => url && !(URL.canParse(url) && LOOPBACK.test(new URL(url).hostname)),
  );
  if (foreign) throw new CodedError('ORIGIN_REFUSED', `refused: ${foreign.slice(0, 200)} is not this machine`);
}

/** Fastify's own failures, in our words. */
function fromFastify(error: FastifyError | Error): CodedError {
  if (error instanceof CodedError) return error;
  const { code, statusCode } = error as FastifyError;
  const known: Record<string, ErrorCode> = {
    FST_ERR_CTP_BODY_TOO_LARGE: 'BODY_TOO_LARGE',
    FST_ERR_CTP_EMPTY_JSON_BODY: 'BODY_INVALID',
    FST_ERR_CTP_INVALID_CONTENT_LENGTH: 'BODY_INVALID',
  };
  const own = known[code];
  if (own) return new CodedError(own, undefined, { cause: error });
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return new CodedError('REQUEST_INVALID', error.message, { cause: error });
  }
  return toCodedError(error);
}
