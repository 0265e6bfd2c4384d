/** Liveness and readiness, for those who watch from outside: no key is needed, and nothing is told that needs one. */
import { CHILD_STATES, isUp, mainWorker } from '@qwen-supervisor/protocol/status';
import { z } from 'zod';
import type { Backend } from '../backend.js';
import { answers } from '../contract/dialect-errors.js';
import type { App } from '../contract/schemas.js';

const readySchema = z.object({
  state: z.enum([...CHILD_STATES, 'unloaded']),
  reason: z.string(),
  model: z.object({
    id: z.string(),
    state: z.string(),
    loaded: z.number().describe('0 to 1'),
    etaSeconds: z.number().nullable(),
  }),
});

export function healthRoutes(app: App, backend: Backend): void {
  const config = { access: 'public' } as const;
  const tags = ['system'];

  app.get(
    '/healthz',
    {
      config,
      schema: {
        tags,
        summary: '200 as long as the API lives',
        response: answers({ 200: z.object({ status: z.literal('ok') }) }),
      },
    },
    () => ({ status: 'ok' }),
  );

  app.get(
    '/readyz',
    {
      config,
      schema: {
        tags,
        summary: '200 when a picture could be begun; a model that was unloaded on purpose is loaded for it',
        response: answers({ 200: readySchema, 503: readySchema }),
      },
    },
    async (_request, reply) => {
      const { children, model } = await backend.link.request('status', {});
      const worker = mainWorker(children);
      const unloaded = worker.state === 'stopped';
      const { id, state, bytesDone, bytesTotal, etaSeconds } = model;
      const loaded = state === 'ready' ? 1 : Math.round((100 * bytesDone) / Math.max(1, bytesTotal)) / 100;
      const body = {
        state: unloaded ? 'unloaded' : worker.state,
        reason: worker.reason,
        model: { id, state, loaded, etaSeconds },
      };
      return reply.status(isUp(worker.state) || unloaded ? 200 : 503).send(body);
    },
  );
}
