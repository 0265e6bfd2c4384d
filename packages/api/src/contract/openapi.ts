/** The OpenAPI document, made from the routes' own schemas, and a page to read it that needs nothing from elsewhere. */
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { AccessSettings } from '@qwen-supervisor/protocol/messages';
import { jsonSchemaTransform, jsonSchemaTransformObject } from 'fastify-type-provider-zod';
import type { z } from 'zod';
import { prefixOf } from '../access/public-url.js';
import type { App } from './schemas.js';

const TAGS = {
  jobs: 'Pictures that are asked for: one job is one picture',
  events: 'What happens, as it happens (server-sent events)',
  images: 'Finished pictures',
  models: 'The model',
  system: 'The supervisor and its processes',
  openai: 'OpenAI Images, as its clients use it',
  sdapi: 'Stable Diffusion WebUI (A1111), as its clients use it',
  classic: 'The endpoints of the first Qwen-Image launcher',
};

declare module 'fastify' {
  interface FastifySchema {
    /** Fields and files of a multipart form, for the document: they are read and checked by the route. */
    form?: z.ZodType;
  }
}

/** The page loads nothing from elsewhere, and nobody frames it. Its own scripts set styles. */
const PAGE_POLICY =
  "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/** Before the routes: it hears of each as it is added. */
export async function describeRoutes(app: App, version: string, settings: AccessSettings): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'qwen-supervisor',
        version,
        description: 'A local Qwen-Image server. Keys, errors and clients: docs/http-api.md.',
      },
      servers: [{ url: settings.pathPrefix || '/' }],
      tags: Object.entries(TAGS).map(([name, description]) => ({ name, description })),
      components: {
        securitySchemes: {
          bearer: {
            type: 'http',
            scheme: 'bearer',
            description: 'A key of keys-file; without that file none is needed',
          },
          basic: { type: 'http', scheme: 'basic', description: 'The key as password, any user name' },
        },
      },
      security: [{}, { bearer: [] }, { basic: [] }],
    },
    transform: (route) => {
      const { form, ...schema } = route.schema ?? {};
      return jsonSchemaTransform({ ...route, schema: form ? { ...schema, body: form } : schema });
    },
    transformObject: (document) => withoutInputs(jsonSchemaTransformObject(document)),
  });
  await app.register(async (scope) => {
    // What can be done here is no secret; doing it needs a key.
    scope.addHook('onRoute', (route) => {
      route.config = { ...route.config, access: 'public' };
    });
    // What the page loads lies beside it, whatever it is served below.
    scope.addHook('onRequest', async (request, reply) => {
      if (/^\/docs(\?|$)/.test(request.url)) return reply.redirect(`${prefixOf(request, settings)}/docs/`, 302);
    });
    await scope.register(swaggerUi, {
      routePrefix: '/docs',
      staticCSP: PAGE_POLICY,
      uiConfig: { deepLinking: true, docExpansion: 'list', layout: 'BaseLayout' },
      theme: { title: 'qwen-supervisor API' },
    });
  });
}

export function openapiRoute(app: App): void {
  app.get('/openapi.json', { config: { access: 'public' }, schema: { hide: true } }, () => app.swagger());
}

/** The schemas of answers are also given as what would be taken, which nobody asks for. */
function withoutInputs(document: ReturnType<typeof jsonSchemaTransformObject>) {
  const { schemas = {} } = ('components' in document && document.components) || {};
  for (const name of Object.keys(schemas)) if (name.endsWith('Input')) delete schemas[name];
  return document;
}
