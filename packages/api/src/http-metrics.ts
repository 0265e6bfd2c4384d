/** How this process answers HTTP, for Prometheus. Begins anew with the process, as counters may. */
import { Histogram } from '@qwen-supervisor/protocol/metrics';
import type { App } from './contract/schemas.js';

const BOUNDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300];

/** Counts every answer; by the pattern of its route, so that ids in addresses make no series of their own. */
export function countRequests(app: App): Histogram {
  const durations = new Histogram(
    'qwen_supervisor_http_request_duration_seconds',
    'Time from a request to the end of its answer. Routes that wait for pictures and event streams take long.',
    BOUNDS,
  );
  app.addHook('onResponse', async ({ method, routeOptions }, reply) => {
    const route = routeOptions.url ?? 'none';
    durations.observe({ method, route, status: String(reply.statusCode) }, reply.elapsedTime / 1000);
  });
  return durations;
}
