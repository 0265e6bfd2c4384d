/** The limits of the core, in its units, from the configuration. */
import type { Config } from '@qwen-supervisor/protocol/config';
import type { Limits } from './supervisor.js';

/** Longest delay between two starts. */
const API_DELAY_CAP_MS = 1000;
const WORKER_DELAY_CAP_MS = 60_000;

export function limitsOf(config: Config): Limits {
  const shared = {
    max: config['restart-max'],
    windowMs: config['restart-window-seconds'] * 1000,
    stopMs: config['stop-seconds'] * 1000,
    loadStallMs: config['load-stall-seconds'] * 1000,
    loadLimitMs: config['load-limit-seconds'] * 1000,
  };
  return {
    inference: { ...shared, delayCapMs: WORKER_DELAY_CAP_MS, beatLimitMs: config['beat-limit-seconds'] * 1000 },
    api: { ...shared, delayCapMs: API_DELAY_CAP_MS, beatLimitMs: null },
  };
}
