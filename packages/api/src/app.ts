/** The HTTP application. One file per dialect; errors leave through one door. */
import { STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import multipart from '@fastify/multipart';
import { CodedError, ERRORS, type ErrorCode, toCodedError } from '@qwen-supervisor/protocol/errors';
import { describeIssues, requireObject } from '@qwen-supervisor/protocol/job-request';
import fastify, { type FastifyError, type FastifyReply, type FastifySchemaCompiler } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import type { z } from 'zod';
import { guard } from './access/access.js';
import type { Backend } from './backend.js';
import { classicRoutes } from './classic/routes.js';
import { errorBody } from './contract/dialect-errors.js';
import { describeRoutes, openapiRoute } from './contract/openapi.js';
import type { App } from './contract/schemas.js';
import { countRequests } from './http-metrics.js';
import { eventRoutes } from './native/event-routes.js';
import { healthRoutes } from './native/health-routes.js';
import { imageRoutes } from './native/image-routes.js';
import { jobRoutes } from './native/job-routes.js';
import { modelRoutes } from './native/model-routes.js';
import { sessionRoutes } from './native/session-routes.js';
import { systemRoutes } from './native/system-routes.js';
import { openaiRoutes } from './openai/routes.js';
import { sdapiLists } from './sdapi/lists.js';
import { sdapiRoutes } from './sdapi/routes.js';

/** Bytes of a body without a picture. */
const BODY_MAX = 4 << 20;
/** A client gets this long for the head of a request, and for all of it. */
const HEAD_LIMIT_MS = 10_000;
const REQUEST_LIMIT_MS = 300_000;
/** Silence on a connection after which TCP looks whether the other end is there. */
const PROBE_MS = 30_000;
/** Files and fields of a form, and bytes of a field. */
const FORM_LIMITS = { files: 4, fields: 32, fieldSize: 128 << 10, parts: 36 };

export async function buildApp(backend: Backend): Promise<App> {
  const { settings, keys, welcome } = backend;
  const app: App = fastify({
    logger: false,
    bodyLimit: BODY_MAX,
    forceCloseConnections: true,
    requestTimeout: REQUEST_LIMIT_MS,
    // Here, so that fastify's own, which nobody uses, are not even loaded.
    schemaController: {
      compilersFactory: {
        // Its type knows Ajv's schemas only.
        buildValidator: () => compileValidator as never,
        // Answers are what the routes make them; the schemas describe them.
        buildSerializer: () => () => (data) => JSON.stringify(data),
      },
    },
    // Who stands before us on this machine says how we are called from outside.
    trustProxy: 'loopback',
    // Longer ids are simply not there.
    routerOptions: { maxParamLength: 16_384 },
    http: {
      requireHostHeader: false,
      headersTimeout: HEAD_LIMIT_MS,
      connectionsCheckingInterval: HEAD_LIMIT_MS / 2,
      // Whatever lies between forgets connections on which nothing moves, and a picture may take minutes.
      keepAlive: true,
      keepAliveInitialDelay: PROBE_MS,
    },
    frameworkErrors: (error, request, reply) => answerError(error, request.url, reply),
    clientErrorHandler: answerBrokenRequest,
  }).withTypeProvider<ZodTypeProvider>();
  app.server.maxConnections = settings.maxConnections;

  // JSON whatever the Content-Type says: clients that forget it, curl first among them, mean JSON.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'string' }, (_request, body, done) => {
    try {
      // Routes that need no body get none; those that need one say so.
      done(null, body === '' ? undefined : JSON.parse(body as string));
    } catch (cause) {
      done(
        new CodedError('BODY_INVALID', `the body is not JSON: ${(cause as Error).message.slice(0, 200)}`, { cause }),
      );
    }
  });
  app.setErrorHandler((error: FastifyError | Error, request, reply) => answerError(error, request.url, reply));
  app.setNotFoundHandler((request) => {
    throw new CodedError('NOT_FOUND', `there is nothing at ${request.method} ${request.url.slice(0, 200)}`);
  });

  await guard(app, settings, keys);
  const http = countRequests(app);
  await app.register(multipart, { limits: { ...FORM_LIMITS, fileSize: settings.maxUploadBytes } });
  await describeRoutes(app, welcome.version);
  healthRoutes(app, backend);
  jobRoutes(app, backend);
  eventRoutes(app, backend);
  imageRoutes(app, backend);
  modelRoutes(app, backend);
  systemRoutes(app, backend, http);
  sessionRoutes(app, backend);
  openaiRoutes(app, backend);
  sdapiRoutes(app, backend);
  sdapiLists(app, backend);
  classicRoutes(app, backend);
  openapiRoute(app);
  return app;
}

const compileValidator: FastifySchemaCompiler<unknown> =
  ({ schema, httpPart }) =>
  (data) =>
    validate(schema as z.ZodType, data, httpPart === 'body');

function validate(schema: z.ZodType, data: unknown, isBody: boolean): { value: unknown } | { error: Error } {
  try {
    const parsed = schema.safeParse(isBody ? requireObject(data) : data);
    return parsed.success
      ? { value: parsed.data }
      : { error: new CodedError('REQUEST_INVALID', describeIssues(parsed.error)) };
  } catch (error) {
    return { error: error as Error };
  }
}

function answerError(error: FastifyError | Error, url: string, reply: FastifyReply) {
  const coded = fromFastify(error);
  if (coded.code === 'INTERNAL') console.error(error);
  if (coded.retryAfterSeconds !== undefined) reply.header('retry-after', coded.retryAfterSeconds);
  // An answer that was begun as a picture ends as an error.
  return reply
    .status(ERRORS[coded.code].http)
    .header('content-type', 'application/json; charset=utf-8')
    .send(JSON.stringify(errorBody(url, coded)));
}

/** What Node says of requests that never became one. */
const BROKEN: Record<string, ErrorCode> = {
  ERR_HTTP_REQUEST_TIMEOUT: 'REQUEST_TIMEOUT',
  HPE_HEADER_OVERFLOW: 'HEADERS_TOO_LARGE',
};

/** What is not HTTP, comes too slowly, or has headers beyond Node's limit, never becomes a request. */
function answerBrokenRequest(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (!socket.writable) return void socket.destroy();
  const code = BROKEN[error.code ?? ''];
  const coded = code ? new CodedError(code) : new CodedError('REQUEST_INVALID', `not valid HTTP: ${error.message}`);
  const body = JSON.stringify({ error: coded.toObject() });
  const { http } = ERRORS[coded.code];
  const head = `HTTP/1.1 ${http} ${STATUS_CODES[http]}\r\ncontent-type: application/json\r\nconnection: close`;
  socket.end(`${head}\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
}

/** Fastify's own failures, in our words. */
function fromFastify(error: FastifyError | Error): CodedError {
  if (error instanceof CodedError) return error;
  const { code, statusCode } = error as FastifyError;
  const known: Record<string, ErrorCode> = {
    FST_ERR_CTP_BODY_TOO_LARGE: 'BODY_TOO_LARGE',
    FST_REQ_FILE_TOO_LARGE: 'BODY_TOO_LARGE',
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
