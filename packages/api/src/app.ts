/** The HTTP application. One file per dialect; errors leave through one door. */
import { createHash, randomUUID } from 'node:crypto';
import type { Readable } from 'node:stream';
import multipart from '@fastify/multipart';
import { CodedError, ERRORS, type ErrorCode, toCodedError } from '@qwen-supervisor/protocol/errors';
import { describeIssues } from '@qwen-supervisor/protocol/job-request';
import fastify, {
  type FastifyError,
  type FastifyReply,
  type FastifyRequest,
  type FastifySchemaCompiler,
} from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import type { z } from 'zod';
import { guard } from './access/access.js';
import { answerBrokenRequest, watchConnections } from './access/connections.js';
import { EndedSessions } from './access/ended-sessions.js';
import type { Backend } from './backend.js';
import { parseJson } from './bodies/json-body.js';
import { BodyBudget, hangUp, receive } from './bodies/receive.js';
import { classicRoutes } from './classic/routes.js';
import { errorBody } from './contract/dialect-errors.js';
import { describeRoutes, openapiRoute } from './contract/openapi.js';
import type { App } from './contract/schemas.js';
import { readBody, wordingOf } from './contract/wording.js';
import { countRequests } from './http-metrics.js';
import { eventRoutes } from './native/event-routes.js';
import { healthRoutes } from './native/health-routes.js';
import { imageRoutes } from './native/image-routes.js';
import { jobRoutes } from './native/job-routes.js';
import { machineRoutes } from './native/machine-routes.js';
import { modelRoutes } from './native/model-routes.js';
import { sessionRoutes } from './native/session-routes.js';
import { systemRoutes } from './native/system-routes.js';
import { openaiRoutes } from './openai/routes.js';
import { pageRoutes } from './page.js';
import { sdapiLists } from './sdapi/lists.js';
import { sdapiRoutes } from './sdapi/routes.js';

/** Bytes of a body of a route that says nothing else: a few fields. */
const BODY_MAX = 64 << 10;
/** A client gets this long for the head of a request. */
const HEAD_LIMIT_MS = 10_000;
/**
 * After silence on a connection TCP looks whether the other end is there: whatever lies between forgets connections on
 * which nothing moves, and a picture may take minutes.
 */
export const KEEP_ALIVE = { keepAlive: true, keepAliveInitialDelay: 30_000 };

declare module 'fastify' {
  interface FastifyRequest {
    /** Digest of what was asked for, and where: the same for a request that is repeated. */
    fingerprint: string;
  }
}

export async function buildApp(backend: Backend): Promise<App> {
  const { settings, keys, welcome } = backend;
  const app: App = fastify({
    logger: false,
    bodyLimit: BODY_MAX,
    // How long a body may take depends on how much of it comes.
    requestTimeout: 0,
    // Here, so that fastify's own, which nobody uses, are not even loaded.
    schemaController: {
      compilersFactory: {
        // Its type knows Ajv's schemas only.
        buildValidator: () => compileValidator as never,
        // Answers are what the routes make them; the schemas describe them.
        buildSerializer: () => () => (data) => JSON.stringify(data),
      },
    },
    // Only of these what they say about the client and about how we are called from outside is believed.
    trustProxy: settings.trustedProxies.length > 0 && settings.trustedProxies,
    // Whether a proxy takes its prefix away is a matter of its configuration.
    rewriteUrl: ({ url = '/' }) => withoutPrefix(url, settings.pathPrefix),
    genReqId: () => randomUUID(),
    // Longer ids are simply not there.
    routerOptions: { maxParamLength: 16_384, ignoreDuplicateSlashes: true, ignoreTrailingSlash: true },
    http: {
      requireHostHeader: false,
      headersTimeout: HEAD_LIMIT_MS,
      connectionsCheckingInterval: HEAD_LIMIT_MS / 2,
      ...KEEP_ALIVE,
    },
    frameworkErrors: (error, request, reply) => answerError(error, request.url, reply),
    clientErrorHandler: answerBrokenRequest,
  }).withTypeProvider<ZodTypeProvider>();
  watchConnections(app.server, settings.maxConnections);
  const budget = new BodyBudget(settings.maxUploadBytes);
  app.decorateRequest('received');
  app.decorateRequest('fingerprint', '');
  app.addHook('onRequest', async (request, reply) => {
    request.received = budget.open();
    // Of a client that goes away before anybody has looked at what it sends.
    reply.raw.on('close', () => {
      if (!request.received.isHeld) request.received.release();
    });
  });
  app.addHook('onRoute', (route) => {
    const { handler } = route;
    route.handler = async function (request, reply) {
      request.received.isHeld = true;
      try {
        return await handler.call(this, request, reply);
      } finally {
        request.received.release();
      }
    };
  });

  // JSON whatever the Content-Type says: clients that forget it, curl first among them, mean JSON.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', async (request: FastifyRequest, payload: Readable) => {
    const max = request.routeOptions.bodyLimit ?? BODY_MAX;
    if (Number(request.headers['content-length'] ?? 0) > max) throw new CodedError('BODY_TOO_LARGE');
    const bytes = await receive(payload, request, max);
    // What the client sent, not what we made of it: a seed that was drawn differs every time.
    request.fingerprint = createHash('sha256').update(`${request.url}\n`).update(bytes).digest('hex');
    return parseJson(bytes);
  });
  app.setErrorHandler((error: FastifyError | Error, request, reply) => answerError(error, request.url, reply));
  app.setNotFoundHandler((request) => {
    const { method, url } = request;
    const meant = /^\/(images\/(generations|edits)|models)\b/.test(url) ? `; there is /v1${url.slice(0, 200)}` : '';
    throw new CodedError('NOT_FOUND', `there is nothing at ${method} ${url.slice(0, 200)}${meant}`);
  });

  const endedSessions = new EndedSessions(welcome.dataDir);
  await guard(app, { settings, keys, endedSessions });
  const http = countRequests(app);
  await app.register(multipart);
  await describeRoutes(app, welcome.version, settings);
  healthRoutes(app, backend);
  jobRoutes(app, backend);
  eventRoutes(app, backend);
  imageRoutes(app, backend);
  modelRoutes(app, backend);
  systemRoutes(app, backend, http);
  machineRoutes(app, backend);
  sessionRoutes(app, backend, endedSessions);
  openaiRoutes(app, backend);
  sdapiRoutes(app, backend);
  sdapiLists(app, backend);
  classicRoutes(app, backend);
  pageRoutes(app, backend);
  openapiRoute(app);
  return app;
}

function withoutPrefix(url: string, prefix: string): string {
  if (prefix === '' || !url.startsWith(prefix)) return url;
  const rest = url.slice(prefix.length);
  return rest === '' ? '/' : rest.startsWith('/') || rest.startsWith('?') ? rest : url;
}

const compileValidator: FastifySchemaCompiler<unknown> = ({ schema, httpPart }) => {
  const known = schema as z.ZodType;
  const wording = httpPart === 'body' ? wordingOf(known) : null;
  return (data) => {
    try {
      if (httpPart === 'body') return { value: readBody(known, wording, data) };
      const parsed = known.safeParse(data);
      if (parsed.success) return { value: parsed.data };
      return { error: new CodedError('REQUEST_INVALID', describeIssues(parsed.error)) };
    } catch (error) {
      return { error: error as Error };
    }
  };
};

function answerError(error: FastifyError | Error, url: string, reply: FastifyReply) {
  const coded = fromFastify(error);
  if (coded.code === 'INTERNAL') console.error(error);
  if (coded.code === 'BODY_TOO_LARGE' || coded.code === 'SERVER_BUSY') hangUp(reply);
  if (coded.retryAfterSeconds !== undefined) reply.header('retry-after', coded.retryAfterSeconds);
  // Some clients show the reason phrase, and nothing else.
  reply.raw.statusMessage = reasonOf(coded);
  // An answer that was begun as a picture ends as an error.
  return reply
    .status(ERRORS[coded.code].http)
    .header('content-type', 'application/json; charset=utf-8')
    .send(JSON.stringify(errorBody(url, coded)));
}

/** A reason phrase is a line of visible characters. RFC 9112, 4. */
function reasonOf({ message }: CodedError): string {
  return message.replace(/[^\x20-\x7e]+/g, '?').slice(0, 200);
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
