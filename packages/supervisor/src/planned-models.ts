/** The models of all workers: what each has of the machine beside the others, and what all together offer. */
import type { Config } from '@qwen-supervisor/protocol/config';
import { listOfDevices } from '@qwen-supervisor/protocol/device';
import { type JobLimits, type JobRequest, requireAllowed, withinPixels } from '@qwen-supervisor/protocol/job-request';
import type { ModelInfo } from '@qwen-supervisor/protocol/messages';
import { type ChildName, type WorkerName, workerNames } from '@qwen-supervisor/protocol/status';
import type { Logger } from 'pino';
import type { PlannedWorker } from './config/config-parts.js';
import type { Effect, Event } from './core/events.js';
import { memoryOf, type State, workerOf } from './core/state.js';
import { type Candidate, heldOnCard } from './devices/devices.js';
import type { Taker } from './jobs/job-store.js';
import { isSameCard, PlannedModel, type Room } from './planned-model.js';

/** What of the configuration a plan depends on. */
export const PLANNED_FROM = ['model', 'memory-gigabytes', 'device', 'device-fallback', 'device-precision'] as const;

/** Memory that will be free when workers have ended. */
export type Free = Pick<Room, 'machineBytes' | 'heldOn'>;
const NOTHING: Free = { machineBytes: 0, heldOn: () => 0 };

export class PlannedModels {
  #all: readonly PlannedModel[];
  /** Cards on which was measured what workers held. */
  readonly #measuredOn = new Map<ChildName, number | null>();

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

  /** NVIDIA's number of the card on which is measured what a child holds; null where none tells. */
  cardToMeasure(name: ChildName): number | null {
    const card = this.#nvidiaOf(name);
    this.#measuredOn.set(name, card);
    return card;
  }

  /** The card that is to get its memory back; what was held of another than the next one is nothing to wait for. */
  cardToWaitFor(name: ChildName): number | null {
    const card = this.#nvidiaOf(name);
    return this.#measuredOn.get(name) === card ? card : null;
  }

  #nvidiaOf(name: ChildName): number | null {
    return this.#all.find((model) => model.name === name)?.candidate?.nvidia ?? null;
  }

  /** How many compute on the processor, those that do not work now among them; one at least, for who asks. */
  onProcessor(config: Config): number {
    return Math.max(1, listOfDevices(config.device).filter((device) => device === 'cpu').length);
  }

  hear(event: Event, effects: Effect[]): void {
    for (const model of this.#all) model.hear(event, effects);
  }

  /** As at the start, for workers that are all started anew. @throws as `open`: then nothing has changed */
  async look(config: Config, state: State): Promise<void> {
    const before = this.#all;
    const heldOn = (candidate: Candidate) =>
      sum(before, (model) => (isOn(model, candidate) ? heldOf(candidate, held(model, state)) : 0));
    const machineBytes = sum(before, (model) => held(model, state).machineBytes);
    this.#all = await planAll(config, { machineBytes, heldOn });
  }

  /** For a worker that is started anew, beside the others. */
  lookAgain(name: WorkerName, config: Config, state: State, log: Logger): Promise<void> {
    const model = this.of(name);
    const others = this.#all.filter((other) => other !== model && isAlive(other, state));
    const own = held(model, state);
    const heldOn = (candidate: Candidate) => (isOn(model, candidate) ? heldOf(candidate, own) : 0);
    const room = beside(
      others,
      1,
      { machineBytes: own.machineBytes, heldOn },
      (other) => held(other, state).machineBytes,
    );
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
    // Where every plan has come to nothing the model is still what it was.
    return (largestOf(this.#all).info ?? this.#all.find(({ lastInfo }) => lastInfo)?.lastInfo) as ModelInfo;
  }

  /** What clients are told: whoever leaves a size out gets one that is allowed. */
  offered(config: Config, state: State): { model: ModelInfo; limits: JobLimits } {
    const { info } = this.#largestAlive(state);
    const limits = limitsOf(config, info);
    return { model: withinPixels(info, Math.min(limits.maxPixels, limits.memoryPixels)), limits };
  }

  /** @throws CodedError REQUEST_INVALID, SIZE_TOO_LARGE */
  requireAllowed(request: JobRequest, config: Config, state: State): void {
    const { info } = this.#largestAlive(state);
    requireAllowed(request, info, limitsOf(config, info));
  }

  /** What it cannot draw, or another should go on with, a worker leaves to those that are not given up. */
  takerFor(name: WorkerName, config: Config, state: State): Taker {
    const model = this.of(name);
    const others = this.#all.filter((other) => other !== model && other.info && isAlive(other, state));
    const own = pixelsOf(model);
    const maxPixels = others.some((other) => pixelsOf(other) > own) ? own : null;
    if (config['resume-elsewhere'] !== 'wait') return { maxPixels, leaves: [] };
    // Also of one that is given up: a card like it may go on.
    const waitsFor = ({ card }: PlannedModel) => card !== model.card && others.some((other) => other.card === card);
    return { maxPixels, leaves: this.#all.filter(waitsFor).map((other) => other.device(config).device) };
  }

  /** Of those that are not given up; of all, where all are. */
  #largestAlive(state: State): { info: ModelInfo } {
    const alive = this.#all.filter((model) => model.info && isAlive(model, state));
    return { info: (alive.length > 0 ? largestOf(alive).info : null) ?? this.info };
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

function limitsOf({ 'max-steps': maxSteps, 'max-pixels': maxPixels }: Config, { plan }: ModelInfo): JobLimits {
  return { maxSteps, maxPixels, memoryPixels: plan.largestPixels };
}

function held({ name }: PlannedModel, state: State): { machineBytes: number; cardBytes: number } {
  return memoryOf(workerOf(state, name));
}

function heldOf(candidate: Candidate, { machineBytes, cardBytes }: ReturnType<typeof held>): number {
  return heldOnCard(candidate, cardBytes, machineBytes > 0);
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
