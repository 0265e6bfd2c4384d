/** The model that the worker runs, what computes it, and how it is to be run within the memory that there is. */
import { lookAtModel } from '@qwen-supervisor/model/preflight';
import type { Config } from '@qwen-supervisor/protocol/config';
import type { ChosenDevice } from '@qwen-supervisor/protocol/device';
import { CodedError, type ErrorCode } from '@qwen-supervisor/protocol/errors';
import { type JobLimits, type JobRequest, requireAllowed, withinPixels } from '@qwen-supervisor/protocol/job-request';
import type { ModelInfo } from '@qwen-supervisor/protocol/messages';
import type { ExitCause } from '@qwen-supervisor/protocol/status';
import type { Logger } from 'pino';
import { modelQuestion } from './config/config-parts.js';
import type { Effect, Event } from './core/events.js';
import { cardOf } from './devices/check-device.js';
import { type Candidate, candidatesFor } from './devices/devices.js';
import { findDevices } from './devices/find-devices.js';

/** What of the configuration a plan depends on. */
export const PLANNED_FROM = ['model', 'memory-gigabytes', 'device', 'device-fallback'] as const;
/** A worker waits for the look no longer: it must have connected within its limit. */
const LOOK_MS = 20_000;
/** Ends that tell of less memory than there was when the plan was made. */
const MEMORY_CAUSES: ExitCause[] = ['oom-killed', 'memory-limit', 'device-memory'];
/** What keeps a model from one device, and not from the next. */
const OF_DEVICE: ErrorCode[] = [
  'DEVICE_UNAVAILABLE',
  'DEVICE_DRIVER_UNUSABLE',
  'CUDA_RUNTIME_INCOMPLETE',
  'MODEL_TOO_LARGE',
];

/** Memory that the workers before hold: it is free when they have ended. */
export interface HeldMemory {
  machineBytes: number;
  cardBytes: number;
}

export const NOTHING_HELD: HeldMemory = { machineBytes: 0, cardBytes: 0 };

/** What a look comes to. */
interface Plan {
  info: ModelInfo;
  device: ChosenDevice;
  /** For the environment of the worker. */
  env: Record<string, string>;
}

export class PlannedModel {
  #now: Plan;
  #isOld = false;
  /** Nothing else than what is used now could be used. */
  #isLast = false;
  #looking = new AbortController();
  /** Devices that have failed while they computed, and why. */
  readonly #failed = new Map<string, string>();

  private constructor(plan: Plan) {
    this.#now = plan;
  }

  /** @throws CodedError MODEL_*, DEVICE_*, SUPERVISOR_STOPPING */
  static async open(config: Config, stopping: AbortSignal): Promise<PlannedModel> {
    return new PlannedModel(await plan(config, NOTHING_HELD, new Map(), stopping));
  }

  get info(): ModelInfo {
    return this.#now.info;
  }

  get device(): ChosenDevice {
    return this.#now.device;
  }

  get env(): Record<string, string> {
    return this.#now.env;
  }

  /** Whether the next worker is to be started with a look at what there is by then. */
  get isOld(): boolean {
    return this.#isOld;
  }

  /** Others have taken the memory, or may have by the time when the model is loaded again; or the device has failed. */
  hear(event: Event, effects: Effect[]): void {
    // Somebody who knows wants it to be tried again.
    if (event.type === 'restart' && event.name !== 'api') {
      this.#failed.clear();
      this.#isOld = true;
    }
    for (const effect of effects) {
      if (effect.type === 'use-next-device') this.#failed.set(this.device.device, effect.reason);
      const hadNoMemory = effect.type === 'record-crash' && MEMORY_CAUSES.includes(effect.crash.cause);
      if (hadNoMemory || effect.type === 'use-next-device') this.#isOld = true;
    }
    if (event.type === 'unload-model') this.#isOld = true;
  }

  /** @throws CodedError MODEL_*, DEVICE_*, SUPERVISOR_STOPPING where `signal` says so: then nothing has changed */
  async look(config: Config, held: HeldMemory, signal?: AbortSignal): Promise<void> {
    // What is heard meanwhile is for the next look.
    this.#isOld = false;
    try {
      this.#now = await plan(config, held, this.#failed, signal);
      this.#isLast = false;
    } catch (error) {
      this.#isOld = true;
      throw error;
    }
  }

  /** As `look`; where there is no plan now, or not in time, the one of before is kept. */
  async lookAgain(config: Config, held: HeldMemory, log: Logger): Promise<void> {
    const late = AbortSignal.timeout(LOOK_MS);
    this.#looking = new AbortController();
    try {
      await this.look(config, held, AbortSignal.any([late, this.#looking.signal]));
      log.info({ ...this.info.plan, ...this.device }, 'the model was planned again');
    } catch (error) {
      const why = late.aborted ? `the look at it took more than ${LOOK_MS / 1000} s` : (error as Error).message;
      log.warn(`the plan of before is kept: ${why}`);
      // Else a device that fails would be left for itself, again and again.
      this.#isLast = true;
    }
  }

  /** Nobody waits for the worker any more. */
  stopLooking(): void {
    this.#looking.abort();
  }

  /** Whether a worker whose device fails can be started on another. */
  hasNextDevice(config: Config): boolean {
    return this.device.device !== 'cpu' && config['device-fallback'] === 'cpu' && !this.#isLast;
  }

  #limits({ 'max-steps': maxSteps, 'max-pixels': maxPixels }: Config): JobLimits {
    return { maxSteps, maxPixels, memoryPixels: this.info.plan.largestPixels };
  }

  /** What clients are told: whoever leaves a size out gets one that is allowed. */
  offered(config: Config): { model: ModelInfo; limits: JobLimits } {
    const limits = this.#limits(config);
    return { model: withinPixels(this.info, Math.min(limits.maxPixels, limits.memoryPixels)), limits };
  }

  /** @throws CodedError REQUEST_INVALID, SIZE_TOO_LARGE */
  requireAllowed(request: JobRequest, config: Config): void {
    requireAllowed(request, this.info, this.#limits(config));
  }
}

/** The first device that works and has room for the model. @throws CodedError */
async function plan(
  config: Config,
  held: HeldMemory,
  failed: Map<string, string>,
  stopping?: AbortSignal,
): Promise<Plan> {
  const found = await findDevices(config['data-dir']);
  const { candidates, passedOver } = candidatesFor(config.device, config['device-fallback'], found);
  const refusals: CodedError[] = [];
  const notes = [...passedOver];
  for (const candidate of candidates) {
    const { device, env } = candidate;
    const fault = failed.get(device);
    if (fault !== undefined) {
      notes.push(`${device}: ${fault}`);
      continue;
    }
    try {
      const info = await lookOn(candidate, config, held, stopping);
      return { info, device: described(candidate, notes), env };
    } catch (error) {
      if (!(error instanceof CodedError) || !OF_DEVICE.includes(error.code)) throw error;
      refusals.push(error);
      notes.push(`${error.code}: ${error.message}`);
    }
  }
  // Whoever has named a device is told of that one.
  throw refusals.at(config.device === 'auto' ? -1 : 0) ?? new CodedError('DEVICE_UNAVAILABLE', notes.join('; '));
}

async function lookOn(
  candidate: Candidate,
  config: Config,
  { machineBytes, cardBytes }: HeldMemory,
  stopping?: AbortSignal,
): Promise<ModelInfo> {
  const card = await cardOf(candidate, cardBytes, stopping);
  return lookAtModel({ ...modelQuestion(config, machineBytes), card }, stopping);
}

function described({ device, name, memoryBytes, reason }: Candidate, notes: string[]): ChosenDevice {
  return { device, name, memoryBytes: device === 'cpu' ? null : memoryBytes, reason: [reason, ...notes].join('; ') };
}
