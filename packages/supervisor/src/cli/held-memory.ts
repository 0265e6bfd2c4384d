import type { SystemStatus } from '@qwen-supervisor/protocol/status';
import type { Free } from '../planned-models.js';

/** What the workers of a supervisor that runs hold; nothing without one. It is free when they have ended. */
export function heldBy(status: SystemStatus | null): Free {
  const workers = (status?.children ?? []).filter(({ name }) => name !== 'api');
  return {
    machineBytes: workers.reduce((sum, { rssBytes }) => sum + (rssBytes ?? 0), 0),
    heldOn: ({ device }) =>
      workers.reduce((sum, worker) => sum + (worker.device?.device === device ? worker.deviceBytes : 0), 0),
  };
}
