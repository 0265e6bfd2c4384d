/** The model that one worker runs, what computes it, and how it is to be run within the memory that there is. */
import { lookAtModel } from '@qwen-supervisor/model/preflight';
import type { Config } from '@qwen-supervisor/protocol/config';
import { type ChosenDevice, type DeviceAbility, listOfDevices, parseDevice } from '@qwen-supervisor/protocol/device';
import { OF_DEVICE } from '@qwen-supervisor/protocol/device-fault';
import { CodedError, type ErrorCode } from '@qwen-supervisor/protocol/errors';
import type { ModelInfo } from '@qwen-supervisor/protocol/messages';
import type { ExitCause, WorkerName } from '@qwen-supervisor/protocol/status';
import type { Logger } from 'pino';
import { modelQuestion } from './config/config-parts.js';
import type { Effect, Event } from './core/events.js';
import { cardOf } from './devices/check-device.js';
import { type Candidate, candidatesFor, fallbackOf } from './devices/devices.js';
import { findDevices } from './devices/find-devices.js';

/** A worker waits for its look no longer: a disk may hang, and a card that is busy takes its time. */
const LOOK_MS = 180_000;
/** Ends that tell of less memory than there was when the plan was made. */
const MEMORY_CAUSES: ExitCause[] = ['oom-killed', 'memory-limit', 'device-memory'];
/** What keeps a model from one device, and not from the next. */
const KEPT_FROM: readonly ErrorCode[] = [...OF_DEVICE, 'MODEL_TOO_LARGE'];

/** What a look finds of the machine, beyond what is free. */
export interface Room {
  /** What the worker before holds, which is free when it has ended, less what the other workers have yet to take. */
  machineBytes: number;
  /** Workers that share that. */
  sharers: number;
  /** What of the memory of a card will be free then. */
  heldOn(candidate: Candidate): number;
  /** What the other workers compute on. */
  taken: Pick<Candidate, 'device' | 'slot' | 'model'>[];
}

/** What a look comes to. */
interface Plan {
  info: ModelInfo;
  device: ChosenDevice;
  /** What the device computes the transformer in. */
  compute: DeviceAbility['compute'];
  candidate: Candidate;
}

/** Whether the fault is of a device, and not of the model. */
export function isOfDevice(error: unknown): error is CodedError {
  return error instanceof CodedError && KEPT_FROM.includes(error.code);
}

export class PlannedModel {
  readonly name: WorkerName;
  /** Its place in the operator's list of devices. */
  readonly #index: number;
  #now: Plan | null = null;
  /** Of the last plan, also where that holds no more. */
  #lastInfo: ModelInfo | null = null;
  /** Why there is no plan. */
  #refusal: CodedError | null = null;
  #isOld = false;
  /** Nothing else than what is used now could be used. */
  #isLast = false;
  #looking = new AbortController();
  /** Devices that have failed while they computed, and why. */
  readonly #failed = new Map<string, string>();

  constructor(name: WorkerName, index: number) {
    this.name = name;
    this.#index = index;
  }

  /** Null where none could be made. */
  get info(): ModelInfo | null {
    return this.#now?.info ?? null;
  }

  get lastInfo(): ModelInfo | null {
    return this.#lastInfo;
  }

  /** The one that is used, or is to be used when it works. */
  device(config: Config): ChosenDevice {
    const reason = this.#refusal?.message ?? 'not looked at yet';
    return this.#now?.device ?? { device: this.#wish(config), name: 'not usable', memoryBytes: null, reason };
  }

  get candidate(): Candidate | null {
    return this.#now?.candidate ?? null;
  }

  /** By what equal devices are known, whose pictures are the same bit by bit. */
  get card(): string | null {
    return this.#now && cardName(this.#now.device);
  }

  /** Whether the next worker is to be started with a look at what there is by then. */
  get isOld(): boolean {
    return this.#isOld;
  }

  /** What a worker is started with. @throws CodedError why there is none */
  requirePlan(): Plan {
    if (this.#now) return this.#now;
    throw this.#refusal ?? new CodedError('DEVICE_UNAVAILABLE');
  }

  /** Others have taken the memory, or may have by the time when the model is loaded again; or the device has failed. */
  hear(event: Event, effects: Effect[]): void {
    // Somebody who knows wants it to be tried again.
    if (event.type === 'restart' && event.name === this.name) {
      this.#failed.clear();
      this.#isOld = true;
    }
    for (const effect of effects) {
      const isFailed = effect.type === 'use-next-device' && effect.name === this.name;
      if (isFailed && this.#now) this.#failed.set(this.#now.device.device, effect.reason);
      const crash = effect.type === 'record-crash' && effect.crash.child === this.name ? effect.crash : null;
      if (isFailed || (crash && MEMORY_CAUSES.includes(crash.cause))) this.#isOld = true;
    }
    if (event.type === 'unload-model') this.#isOld = true;
  }

  /** @throws CodedError MODEL_*, DEVICE_*, SUPERVISOR_STOPPING where `signal` says so: then nothing has changed */
  async look(config: Config, room: Room, signal?: AbortSignal): Promise<void> {
    // What is heard meanwhile is for the next look.
    this.#isOld = false;
    try {
      const wish = { device: this.#wish(config), fallback: fallbackOf(config) };
      this.#now = await plan(config, wish, room, this.#failed, signal);
      this.#lastInfo = this.#now.info;
      this.#refusal = null;
      this.#isLast = false;
    } catch (error) {
      this.#isOld = true;
      throw error;
    }
  }

  /** At the start, where the others may go on without it. @throws CodedError MODEL_*, SUPERVISOR_STOPPING */
  async lookFirst(config: Config, room: Room, signal?: AbortSignal): Promise<void> {
    try {
      await this.look(config, room, signal);
    } catch (error) {
      if (!isOfDevice(error)) throw error;
      this.#refusal = error;
    }
  }

  /** As `look`; where there is no plan now, or not in time, the one of before is kept. */
  async lookAgain(config: Config, room: Room, log: Logger): Promise<void> {
    const late = AbortSignal.timeout(LOOK_MS);
    this.#looking = new AbortController();
    try {
      await this.look(config, room, AbortSignal.any([late, this.#looking.signal]));
      log.info({ worker: this.name, ...this.info?.plan, ...this.#now?.device }, 'the model was planned again');
    } catch (error) {
      const why = late.aborted ? `the look at it took more than ${LOOK_MS / 1000} s` : (error as Error).message;
      // Of several, another may have its memory by now, or its card.
      const isTaken = isOfDevice(error) && listOfDevices(config.device).length > 1;
      if (this.#now === null || isTaken) {
        this.#now = null;
        this.#refusal = isOfDevice(error) ? error : new CodedError('DEVICE_UNAVAILABLE', why, { cause: error });
      } else log.warn(`the plan of before is kept: ${why}`);
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
    return this.#now?.device.device !== 'cpu' && fallbackOf(config) === 'cpu' && !this.#isLast;
  }

  #wish(config: Config): string {
    return listOfDevices(config.device)[this.#index] as string;
  }
}

export function cardName({ device, name }: Pick<ChosenDevice, 'device' | 'name'>): string {
  return `${parseDevice(device).kind} ${name}`;
}

/** The first device that works and has room for the model. @throws CodedError */
async function plan(
  config: Config,
  wish: { device: string; fallback: 'cpu' | 'none' },
  room: Room,
  failed: Map<string, string>,
  stopping?: AbortSignal,
): Promise<Plan> {
  const found = await findDevices(config);
  const { candidates, passedOver } = candidatesFor(wish.device, wish.fallback, found);
  const refusals: CodedError[] = [];
  const notes = [...passedOver];
  for (const candidate of candidates) {
    const { device } = candidate;
    const fault = failed.get(device);
    if (fault !== undefined) {
      notes.push(`${device}: ${fault}`);
      continue;
    }
    try {
      requireUntaken(candidate, room.taken);
      const { compute, card } = await cardOf(candidate, room.heldOn(candidate), stopping);
      const info = await lookAtModel({ ...modelQuestion(config, room.machineBytes, room.sharers), card }, stopping);
      return { info, device: described(candidate, notes), compute, candidate };
    } catch (error) {
      if (!isOfDevice(error)) throw error;
      refusals.push(error);
      notes.push(`${error.code}: ${error.message}`);
    }
  }
  // Whoever has named a device is told of that one.
  throw refusals.at(wish.device === 'auto' ? -1 : 0) ?? new CodedError('DEVICE_UNAVAILABLE', notes.join('; '));
}

/** A card takes one worker, under whatever name. @throws CodedError DEVICE_UNAVAILABLE */
function requireUntaken(candidate: Candidate, taken: Room['taken']): void {
  const { device } = candidate;
  if (device === 'cpu') return;
  const other = taken.find((one) => isSameCard(one, candidate));
  if (other) throw new CodedError('DEVICE_UNAVAILABLE', `${device} is ${other.device}, which another worker has`);
  // Vulkan chooses by maker and model, and may take a card that CUDA has.
  const twin = taken.find(
    (one) => one.model !== null && one.model === candidate.model && [device, one.device].some(isVulkan),
  );
  if (twin)
    throw new CodedError(
      'DEVICE_UNAVAILABLE',
      `${device} is of the same model as ${twin.device}: Vulkan cannot tell them apart`,
    );
}

function isVulkan(device: string): boolean {
  return parseDevice(device).kind === 'webgpu';
}

/** Through CUDA and Vulkan one card shows as two. */
export function isSameCard(a: Pick<Candidate, 'device' | 'slot'>, b: Pick<Candidate, 'device' | 'slot'>): boolean {
  return a.device === b.device || (a.slot !== null && a.slot === b.slot);
}

function described({ device, name, memoryBytes, reason }: Candidate, notes: string[]): ChosenDevice {
  return { device, name, memoryBytes: device === 'cpu' ? null : memoryBytes, reason: [reason, ...notes].join('; ') };
}
