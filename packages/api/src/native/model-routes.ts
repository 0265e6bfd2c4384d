/** The model: what it can do, and whether it is in memory. */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { z } from 'zod';
import type { Backend } from '../backend.js';
import { answers } from '../contract/dialect-errors.js';
import { type App, byId, modelSchema, okSchema } from '../contract/schemas.js';

export function modelRoutes(app: App, backend: Backend): void {
  const { link } = backend;
  const tags = ['models'];

  app.get(
    '/api/v1/models',
    {
      schema: {
        tags,
        summary: 'The models of this server',
        response: answers({ 200: z.object({ models: z.array(modelSchema) }) }),
      },
    },
    async () => {
      const { model } = await link.request('status', {});
      return { models: [modelAnswer(backend, model.state)] };
    },
  );

  const known = (id: string) => {
    if (id !== backend.welcome.model.id)
      throw new CodedError('MODEL_UNKNOWN', `there is no model '${id.slice(0, 100)}'`);
  };

  app.post(
    '/api/v1/models/:id/load',
    {
      schema: {
        tags,
        summary: 'Load the model now; else the next job does',
        params: byId,
        response: answers({ 202: okSchema }, 'MODEL_UNKNOWN', 'WORKER_FAILED'),
      },
    },
    async (request, reply) => {
      known(request.params.id);
      return reply.status(202).send(await link.request('loadModel', {}));
    },
  );

  app.post(
    '/api/v1/models/:id/unload',
    {
      schema: {
        tags,
        summary: "Give the model's memory back until a job wants it",
        params: byId,
        response: answers({ 202: okSchema }, 'MODEL_UNKNOWN', 'MODEL_IN_USE'),
      },
    },
    async (request, reply) => {
      known(request.params.id);
      return reply.status(202).send(await link.request('unloadModel', {}));
    },
  );
}

export function modelAnswer(
  { welcome, settings }: Backend,
  state: 'unloaded' | 'loading' | 'ready',
): z.output<typeof modelSchema> {
  const { id, defaults, presets, distilled, sizes, examples, note, plan } = welcome.model;
  const { neededBytes, cardBytes, availableBytes, residentPixels, tileAbovePixels } = plan;
  const { maxSteps, maxPixels, memoryPixels } = welcome.limits;
  const limits = {
    maxSteps,
    maxPixels: Math.min(maxPixels, memoryPixels),
    maxUploadBytes: settings.maxUploadBytes,
  };
  return {
    id,
    state,
    defaults,
    presets,
    distilled,
    sizes,
    examples,
    note,
    limits,
    plan: { neededBytes, cardBytes, availableBytes, residentPixels, tileAbovePixels },
  };
}
