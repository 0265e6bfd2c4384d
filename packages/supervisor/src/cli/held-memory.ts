import type { SystemStatus } from '@qwen-supervisor/protocol/status';
import { heldOnCard } from '../devices/devices.js';
import type { Free } from '../planned-models.js';

/** What the workers of a supervisor that runs hold; nothing without one. It is free when they have ended. */
export function heldBy(status: SystemStatus | null): Free {
  const workers = (status?.children ?? []).filter(({ name }) => name !== 'api');
  return {
    machineBytes: workers.reduce((sum, { rssBytes }) => sum + (rssBytes ?? 0), 0),
    heldOn(candidate) {
      const there = workers.filter(({ device }) => device?.device === candidate.device);
      return there.reduce((sum, { pid, deviceBytes }) => sum + heldOnCard(candidate, deviceBytes, pid !== null), 0);
    },
  };
}
