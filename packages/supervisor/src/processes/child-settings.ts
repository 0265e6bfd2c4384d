/** What a child is started with, from the configuration. */
import type { Config } from '@qwen-supervisor/protocol/config';
import type { ApiSettings, WorkerSettings } from '@qwen-supervisor/protocol/messages';
import { accessOf } from '../config/config-parts.js';
import type { HttpPort } from '../machine/http-port.js';
import { cardName, type PlannedModel } from '../planned-model.js';
import { INHERITED_FD } from './spawn-child.js';

/** Beats of a living child in the time after which a silent one is taken for dead: one at least between two looks. */
const BEATS_PER_LIMIT = 4;

function beatMs(config: Config): number {
  return (config['beat-limit-seconds'] * 1000) / BEATS_PER_LIMIT;
}

export function apiSettings(config: Config, { host, port, fds }: HttpPort): ApiSettings {
  return {
    listenFds: fds.map((_, i) => INHERITED_FD + i),
    host,
    port,
    beatMs: beatMs(config),
    access: accessOf(config),
  };
}

/** `sharers`: workers that compute on the processor. @throws CodedError where the model has no plan */
export function workerSettings(config: Config, dataDir: string, model: PlannedModel, sharers: number): WorkerSettings {
  const { info, device, compute } = model.requirePlan();
  const { id, plan, distilled } = info;
  return {
    modelFolder: config.model,
    dataDir,
    checkpointSteps: config['checkpoint-steps'],
    model: id,
    embedsMetadata: config['picture-metadata'] === 'embed',
    beatMs: beatMs(config),
    threads: config.threads,
    sharers,
    device: device.device,
    card: cardName(device),
    compute,
    startsOverElsewhere: config['resume-elsewhere'] === 'start-over',
    plan,
    distilled,
  };
}
