/**
 * The page, as it was built: one document, and files whose names change with what is in them. All lies in memory,
 * packed as it was at the build: it is small, and nothing of the disk can be reached by an address.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { prefixOf } from './access/public-url.js';
import type { Backend } from './backend.js';
import type { App } from './contract/schemas.js';

const BUILT = fileURLToPath(new URL('../../web/dist/', import.meta.url));
/** In the document, in place of the path below which we are served. */
const BASE = '/app/';

/** Nothing from elsewhere, no scripts but its own files, nobody frames it, and text never becomes HTML. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' blob: data:",
  "connect-src 'self'",
  "manifest-src 'self'",
  "base-uri 'self'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join('; ');

const TYPES: Record<string, string> = {
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.webmanifest': 'application/manifest+json',
};
/** The better first. */
const PACKED = { br: '.br', gzip: '.gz' } as const;

type Files = ReadonlyMap<string, Buffer>;

export function pageRoutes(app: App, backend: Backend): void {
  const files = readBuilt();
  const schema = { hide: true };
  const config = { access: 'public' } as const;

  app.get('/app', { config, schema }, (request, reply) => sendDocument(request, reply));
  app.get('/app/*', { config, schema }, (request, reply) => {
    const name = (request.params as { '*': string })['*'];
    const file = files.get(name);
    // A place in the page has no file of its own.
    if (!file && extname(name) === '') return sendDocument(request, reply);
    if (!file || name.endsWith('.html'))
      throw new CodedError('NOT_FOUND', `the page has no file ${name.slice(0, 200)}`);
    const isFixed = name.startsWith('assets/');
    reply.header('cache-control', isFixed ? 'public, max-age=31536000, immutable' : 'no-cache');
    reply.header('content-type', TYPES[extname(name)] ?? 'application/octet-stream');
    return reply.send(packed(name, file, request, reply));
  });

  function packed(name: string, file: Buffer, { headers }: FastifyRequest, reply: FastifyReply): Buffer {
    reply.header('vary', 'origin, accept-encoding');
    const accepted = String(headers['accept-encoding'] ?? '');
    for (const [encoding, suffix] of Object.entries(PACKED)) {
      const smaller = files.get(name + suffix);
      if (smaller && new RegExp(`\\b${encoding}\\b`).test(accepted)) {
        reply.header('content-encoding', encoding);
        return smaller;
      }
    }
    return file;
  }

  function sendDocument(request: FastifyRequest, reply: FastifyReply) {
    const document = files.get('index.html');
    if (!document) throw new CodedError('NOT_FOUND', "the page is not there: 'npm run build' makes it");
    reply.headers({
      'content-type': TYPES['.html'],
      'content-security-policy': POLICY,
      'cache-control': 'no-cache',
    });
    const base = `${prefixOf(request, backend.settings)}${BASE}`;
    return reply.send(document.toString('utf8').replace(`href="${BASE}"`, `href="${base}"`));
  }
}

/** By their paths; none where nothing was built. */
function readBuilt(): Files {
  try {
    const entries = readdirSync(BUILT, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    return new Map(
      entries.map((entry) => {
        const path = `${entry.parentPath}/${entry.name}`;
        return [path.slice(BUILT.length).replace(/^\//, ''), readFileSync(path)];
      }),
    );
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return new Map();
    throw error;
  }
}
