/** The parts of a configuration, each in the units of whoever reads it. */
import { isIP } from 'node:net';
import type { PreflightQuestion } from '@qwen-supervisor/model/preflight';
import type { Config } from '@qwen-supervisor/protocol/config';
import { listOfDevices } from '@qwen-supervisor/protocol/device';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { AccessSettings } from '@qwen-supervisor/protocol/messages';
import type { ModelPlan } from '@qwen-supervisor/protocol/model-plan';
import type { WorkerName } from '@qwen-supervisor/protocol/status';
import type { ChildLimits } from '../core/child.js';
import type { Limits } from '../core/state.js';
import type { Bounds } from '../jobs/job-desk.js';

/** A worker that takes this many times what its plan needs, and this many bytes, has run away. */
const HARD_FACTOR = 1.5;
const HARD_MIN = 4e9;
/** Longest delay between two starts. */
const API_DELAY_CAP_MS = 1000;
const WORKER_DELAY_CAP_MS = 60_000;

/**
 * What is asked about the model before a worker is started with it; `heldBytes`: what the worker before holds, less
 * what the others have yet to take; `sharers`: those who have no part of their own yet.
 */
export function modelQuestion(config: Config, heldBytes: number, sharers: number): PreflightQuestion {
  const { model: target, 'data-dir': dataDir } = config;
  const wish = bytes(config['memory-gigabytes']);
  // They share what they may take.
  const memoryBytes = wish === null ? null : Math.floor(wish / listOfDevices(config.device).length);
  return { target, dataDir, memoryBytes, heldBytes, sharers, card: null };
}

/** How a worker stands to its model: `plan` is null where there is none yet. */
export interface PlannedWorker {
  name: WorkerName;
  plan: ModelPlan | null;
  hasNextDevice: boolean;
}

export function limitsOf(config: Config, planned: PlannedWorker[]): Limits {
  const shared = {
    max: config['restart-max'],
    windowMs: config['restart-window-seconds'] * 1000,
    stopMs: config['stop-seconds'] * 1000,
    loadStallMs: config['load-stall-seconds'] * 1000,
    loadLimitMs: config['load-limit-seconds'] * 1000,
    beatLimitMs: config['beat-limit-seconds'] * 1000,
    stepLimitMs: config['step-limit-seconds'] * 1000,
  };
  const workers = planned.map(({ name, plan, hasNextDevice }): [WorkerName, ChildLimits] => [
    name,
    {
      ...shared,
      delayCapMs: WORKER_DELAY_CAP_MS,
      softBytes: bytes(config['memory-soft-gigabytes']),
      hardBytes: bytes(config['memory-hard-gigabytes']) ?? (plan && hardLimit(plan)),
      hasNextDevice,
    },
  ]);
  // Without it nobody is answered: a fault that may pass is waited for, however long.
  const hardBytes = bytes(config['api-memory-gigabytes']);
  const api = { ...shared, max: null, delayCapMs: API_DELAY_CAP_MS, softBytes: null, hardBytes, hasNextDevice: false };
  return { api, workers: Object.fromEntries(workers), onStop: config['on-stop'] };
}

function hardLimit({ neededBytes, availableBytes }: ModelPlan): number {
  return Math.max(HARD_MIN, Math.min(HARD_FACTOR * neededBytes, availableBytes));
}

/** What the queue may hold and what is kept. */
export function boundsOf(config: Config): Bounds {
  return {
    maxQueued: config['max-queued'],
    maxQueuedPerKey: config['max-queued-per-key'],
    keepDays: config['keep-days'] === 0 ? null : config['keep-days'],
    keepTrashDays: config['keep-trash-days'] === 0 ? null : config['keep-trash-days'],
    keepBytes: bytes(config['keep-gigabytes']),
  };
}

/** Who may call the API. */
export function accessOf(config: Config): AccessSettings {
  return {
    allowHosts: listOf(config['allow-hosts']).map((host) => host.toLowerCase()),
    allowOrigins: listOf(config['allow-origins']),
    trustedProxies: proxiesOf(config['trusted-proxies']),
    pathPrefix: config['path-prefix'],
    requestsPerMinute: config['requests-per-minute'] || null,
    maxConnections: config['max-connections'],
    maxUploadBytes: config['max-upload-megabytes'] * 1e6,
    strictModelNames: config['model-names'] === 'strict',
  };
}

/** @throws CodedError CONFIG_INVALID */
function proxiesOf(text: string): string[] {
  const proxies = listOf(text);
  const strange = proxies.find((proxy) => !isNetwork(proxy));
  if (strange !== undefined)
    throw new CodedError('CONFIG_INVALID', `trusted-proxies: '${strange}' is neither an address nor a network`);
  return proxies;
}

function isNetwork(text: string): boolean {
  const [address = '', bits = '', ...more] = text.split('/');
  const version = isIP(address);
  return (
    version !== 0 &&
    more.length === 0 &&
    (bits === '' ? !text.includes('/') : /^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128))
  );
}

function listOf(text: string): string[] {
  return text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
}

/** 0 stands for no limit. */
function bytes(gigabytes: number): number | null {
  return gigabytes === 0 ? null : gigabytes * 1e9;
}
