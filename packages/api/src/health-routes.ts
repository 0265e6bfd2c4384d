/** Liveness, readiness and the system's status. */
import { isUp } from '@qwen-supervisor/protocol/status';
import type { FastifyInstance } from 'fastify';
import type { Backend } from './backend.js';

export function healthRoutes(app: FastifyInstance, backend: Backend): void {
  /** 200 as long as this process lives. */
  app.get('/healthz', () => ({ status: 'ok' }));

  /** 200 only when a picture could be started now. */
  app.get('/readyz', async (_request, reply) => {
    const { children, model } = await backend.link.request('status', {});
    const worker = children.find((child) => child.name === 'inference');
    const body = { state: worker?.state, reason: worker?.reason, model };
    return reply.status(isUp(worker?.state) ? 200 : 503).send(body);
  });

  app.get('/api/v1/status', () => backend.link.request('status', {}));
}
