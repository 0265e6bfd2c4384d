/** The machines that draw from one queue: any of them tells of all. */
import { z } from 'zod';
import type { Backend } from '../backend.js';
import { answers } from '../contract/dialect-errors.js';
import { type App, machineSchema, okSchema } from '../contract/schemas.js';

export function machineRoutes(app: App, backend: Backend): void {
  const { link } = backend;
  const tags = ['machines'];
  const params = z.object({ name: z.string().max(300) });

  app.get(
    '/api/v1/machines',
    {
      schema: {
        tags,
        summary: 'The machines that share the queue; none where it is the machine’s own',
        response: answers({ 200: z.object({ machines: z.array(machineSchema) }) }),
      },
    },
    async () => ({ machines: (await link.request('status', {})).machines }),
  );

  for (const [verb, isDrained, summary] of [
    ['drain', true, 'The machine takes no more jobs, and ends those that it draws. Needs an admin key'],
    ['resume', false, 'A machine that was drained takes jobs again. Needs an admin key'],
  ] as const) {
    app.post(
      `/api/v1/machines/:name/${verb}`,
      {
        config: { access: 'admin' },
        schema: { tags, summary, params, response: answers({ 202: okSchema }, 'MACHINE_NOT_FOUND', 'ADMIN_ONLY') },
      },
      async ({ params: { name } }, reply) =>
        reply.status(202).send(await link.request('drainMachine', { name, isDrained })),
    );
  }
}
