/** The models of all workers: what each has of the machine beside the others, and what all together offer. */
import type { Config } from '@qwen-supervisor/protocol/config';
import { listOfDevices } from '@qwen-supervisor/protocol/device';
import { type JobLimits, type JobRequest, requireAllowed, withinPixels } from '@qwen-supervisor/protocol/job-request';
import type { ModelInfo } from '@qwen-supervisor/protocol/messages';
import { type WorkerName, workerNames } from '@qwen-supervisor/protocol/status';
import type { Logger } from 'pino';
import type { PlannedWorker } from './config/config-parts.js';
import type { Effect, Event } from './core/events.js';
import { memoryOf, type State, workerOf } from './core/state.js';
import type { Candidate } from './devices/devices.js';
import type { Taker } from './jobs/job-store.js';
import { isSameCard, PlannedModel, type Room } from './planned-model.js';

/** What of the configuration a plan depends on. */
export const PLANNED_FROM = ['model', 'memory-gigabytes', 'device', 'device-fallback'] as const;

/** Memory that will be free when workers have ended. */
export type Free = Pick<Room, 'machineBytes' | 'heldOn'>;
const NOTHING: Free = { machineBytes: 0, heldOn: () => 0 };

export class PlannedModels {
  #all: readonly PlannedModel[];

  private constructor(all: PlannedModel[]) {
    this.#all = all;
  }

  /**
   * Of several workers those that can be planned: one at least. `free`: beyond what is free now. @throws CodedError
   * MODEL_*, DEVICE_*, SUPERVISOR_STOPPING
   */
  static async open(config: Config, stopping: AbortSignal, free = NOTHING): Promise<PlannedModels> {
    return new PlannedModels(await planAll(config, free, stopping));
  }

  get names(): WorkerName[] {
    return this.#all.map(({ name }) => name);
  }

  of(name: WorkerName): PlannedModel {
    return this.#all.find((model) => model.name === name) as PlannedModel;
  }

  /** How many compute on the processor. */
  get onProcessor(): number {
    return this.#all.filter(({ candidate }) => candidate?.device === 'cpu').length;
  }

  hear(event: Event, effects: Effect[]): void {
    for (const model of this.#all) model.hear(event, effects);
  }

  /** As at the start, for workers that are all started anew. @throws as `open`: then nothing has changed */
  async look(config: Config, state: State): Promise<void> {
    const before = this.#all;
    const heldOn = (candidate: Candidate) =>
      sum(before, (model) => (isOn(model, candidate) ? held(model, state).cardBytes : 0));
    const machineBytes = sum(before, (model) => held(model, state).machineBytes);
    this.#all = await planAll(config, { machineBytes, heldOn });
  }

  /** For a worker that is started anew, beside the others. */
  lookAgain(name: WorkerName, config: Config, state: State, log: Logger): Promise<void> {
    const model = this.of(name);
    const others = this.#all.filter((other) => other !== model && isAlive(other, state));
    const { machineBytes, cardBytes } = held(model, state);
    const heldOn = (candidate: Candidate) => (isOn(model, candidate) ? cardBytes : 0);
    const room = beside(others, 1, { machineBytes, heldOn }, (other) => held(other, state).machineBytes);
    return model.lookAgain(config, room, log);
  }

  planned(config: Config): PlannedWorker[] {
    return this.#all.map((model) => ({
      name: model.name,
      plan: model.info?.plan ?? null,
      hasNextDevice: model.hasNextDevice(config),
    }));
  }

  /** Of the one that draws the largest pictures. */
  get info(): ModelInfo {
    return this.#largest().requirePlan().info;
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

  /** What it cannot draw, or another should go on with, a worker leaves to those that are not given up. */
  takerFor(name: WorkerName, config: Config, state: State): Taker {
    const model = this.of(name);
    const others = this.#all.filter((other) => other !== model && other.info && isAlive(other, state));
    const own = pixelsOf(model);
    const maxPixels = others.some((other) => pixelsOf(other) > own) ? own : null;
    const leaves = others.filter(({ card }) => card !== model.card).map((other) => other.device(config).device);
    return { maxPixels, leaves: config['resume-elsewhere'] === 'wait' ? leaves : [] };
  }

  #limits({ 'max-steps': maxSteps, 'max-pixels': maxPixels }: Config): JobLimits {
    return { maxSteps, maxPixels, memoryPixels: this.info.plan.largestPixels };
  }

  #largest(): PlannedModel {
    return largestOf(this.#all);
  }
}

/** One after the other, each with its part of what is left. @throws CodedError of the first, if none can be planned */
async function planAll(config: Config, free: Free, stopping?: AbortSignal): Promise<PlannedModel[]> {
  const names = workerNames(listOfDevices(config.device).length);
  const models: PlannedModel[] = [];
  for (const [index, name] of names.entries()) {
    const model = new PlannedModel(name, index);
    await model.lookFirst(
      config,
      beside(models, names.length - index, free, () => 0),
      stopping,
    );
    models.push(model);
  }
  largestOf(models).requirePlan();
  return models;
}

/** What is left when the others have taken what they need. */
function beside(
  others: readonly PlannedModel[],
  sharers: number,
  free: Free,
  heldBytes: (other: PlannedModel) => number,
): Room {
  const promised = sum(others, (other) => Math.max(0, (other.info?.plan.neededBytes ?? 0) - heldBytes(other)));
  return {
    ...free,
    machineBytes: free.machineBytes - promised,
    sharers,
    taken: others.flatMap(({ candidate }) => candidate ?? []),
  };
}

function held({ name }: PlannedModel, state: State): { machineBytes: number; cardBytes: number } {
  return memoryOf(workerOf(state, name));
}

function isAlive({ name }: PlannedModel, state: State): boolean {
  return workerOf(state, name).child.phase !== 'failed';
}

function isOn({ candidate: own }: PlannedModel, candidate: Candidate): boolean {
  return own !== null && isSameCard(own, candidate);
}

function largestOf(models: readonly PlannedModel[]): PlannedModel {
  const [largest] = models.toSorted((a, b) => pixelsOf(b) - pixelsOf(a));
  return largest as PlannedModel;
}

/** Of the largest picture; none without a plan. */
function pixelsOf({ info }: PlannedModel): number {
  return info?.plan.largestPixels ?? -1;
}

function sum<T>(all: readonly T[], of: (one: T) => number): number {
  return all.reduce((total, one) => total + of(one), 0);
}
