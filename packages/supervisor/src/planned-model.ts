/** The model that the worker runs, and how it is to be run within the memory that there is. */
import { lookAtModel } from '@qwen-supervisor/model/preflight';
import type { Config } from '@qwen-supervisor/protocol/config';
import { type JobLimits, type JobRequest, requireAllowed, withinPixels } from '@qwen-supervisor/protocol/job-request';
import type { ModelInfo } from '@qwen-supervisor/protocol/messages';
import type { ExitCause } from '@qwen-supervisor/protocol/status';
import type { Logger } from 'pino';
import { modelQuestion } from './config/config-parts.js';
import type { Effect, Event } from './core/events.js';

/** Ends that tell of less memory than there was when the plan was made. */
const MEMORY_CAUSES: ExitCause[] = ['oom-killed', 'memory-limit'];

export class PlannedModel {
  #info: ModelInfo;
  #isOld = false;

  constructor(info: ModelInfo) {
    this.#info = info;
  }

  get info(): ModelInfo {
    return this.#info;
  }

  /** Whether the next worker is to be started with a look at the memory that there is by then. */
  get isOld(): boolean {
    return this.#isOld;
  }

  /** Others have taken the memory, or may have by the time when the model is loaded again. */
  hear(event: Event, effects: Effect[]): void {
    const hadNoMemory = (effect: Effect) =>
      effect.type === 'record-crash' && MEMORY_CAUSES.includes(effect.crash.cause);
    if (event.type === 'unload-model' || effects.some(hadNoMemory)) this.#isOld = true;
  }

  /** `heldBytes`: what the worker before holds. @throws CodedError MODEL_*: then nothing has changed */
  async look(config: Config, heldBytes: number): Promise<void> {
    this.#info = await lookAtModel(modelQuestion(config, heldBytes));
    this.#isOld = false;
  }

  /** As `look`; where there is no plan now, the one of before is tried, and false is given. */
  async lookAgain(config: Config, heldBytes: number, log: Logger): Promise<boolean> {
    try {
      await this.look(config, heldBytes);
    } catch (error) {
      log.warn(`the plan of before is kept: ${(error as Error).message}`);
      return false;
    }
    log.info(this.#info.plan, 'the model was planned again');
    return true;
  }

  #limits({ 'max-steps': maxSteps, 'max-pixels': maxPixels }: Config): JobLimits {
    return { maxSteps, maxPixels, memoryPixels: this.#info.plan.largestPixels };
  }

  /** What clients are told: whoever leaves a size out gets one that is allowed. */
  offered(config: Config): { model: ModelInfo; limits: JobLimits } {
    const limits = this.#limits(config);
    return { model: withinPixels(this.#info, Math.min(limits.maxPixels, limits.memoryPixels)), limits };
  }

  /** @throws CodedError REQUEST_INVALID, SIZE_TOO_LARGE */
  requireAllowed(request: JobRequest, config: Config): void {
    requireAllowed(request, this.#info, this.#limits(config));
  }
}
