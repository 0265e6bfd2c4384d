/** The HTTP application. One file per dialect; errors leave through one door. */
import { CodedError, ERRORS, type ErrorCode, toCodedError } from '@qwen-supervisor/protocol/errors';
import fastify, { type FastifyError, type FastifyInstance } from 'fastify';
import type { Backend } from './backend.js';
import { healthRoutes } from './health-routes.js';
import { jobRoutes } from './job-routes.js';
import { openaiRoutes, toOpenaiError } from './openai-routes.js';

/** Bytes of a body. */
const BODY_MAX = 4 << 20;

export function buildApp(backend: Backend): FastifyInstance {
  const app = fastify({ logger: false, bodyLimit: BODY_MAX, forceCloseConnections: true });

  // JSON whatever the Content-Type says: clients that forget it, curl first among them, mean JSON.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'string' }, (_request, body, done) => {
    try {
      done(null, JSON.parse(body as string));
    } catch (cause) {
      done(new CodedError('BODY_INVALID', `the body is not JSON: ${(cause as Error).message}`, { cause }));
    }
  });

  app.setErrorHandler((error: FastifyError | Error, request, reply) => {
    const coded = fromFastify(error);
    if (coded.code === 'INTERNAL') console.error(error);
    const body = request.url.startsWith('/v1/') ? toOpenaiError(coded) : { error: coded.toObject() };
    return reply.status(ERRORS[coded.code].http).send(body);
  });
  app.setNotFoundHandler((request) => {
    throw new CodedError('NOT_FOUND', `there is nothing at ${request.method} ${request.url.slice(0, 200)}`);
  });

  healthRoutes(app, backend);
  jobRoutes(app, backend);
  openaiRoutes(app, backend);
  return app;
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
