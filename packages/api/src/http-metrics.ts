/** How this process answers HTTP, for Prometheus. Begins anew with the process, as counters may. */
import { Histogram, Registry } from 'prom-client';
import type { App } from './schemas.js';

const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300];

export interface HttpMetrics {
  contentType: string;
  text(): Promise<string>;
}

/** Counts every answer; by the pattern of its route, so that ids in addresses make no series of their own. */
export function countRequests(app: App): HttpMetrics {
  const registry = new Registry();
  const durations = new Histogram({
    name: 'qwen_supervisor_http_request_duration_seconds',
    help: 'Time from a request to the end of its answer. Routes that wait for pictures and event streams take long.',
    labelNames: ['method', 'route', 'status'],
    buckets: BUCKETS,
    registers: [registry],
  });
  app.addHook('onResponse', async ({ method, routeOptions }, reply) => {
    const route = routeOptions.url ?? 'none';
    durations.observe({ method, route, status: reply.statusCode }, reply.elapsedTime / 1000);
  });
  return { contentType: registry.contentType, text: () => registry.metrics() };
}
