/** Looks at a machine for what could compute pictures. */
import { cpus, totalmem } from 'node:os';
import type { Config } from '@qwen-supervisor/protocol/config';
import { readCards } from './cards.js';
import { cudaEnvironment } from './cuda-runtime.js';
import type { Found } from './devices.js';
import { readVulkan } from './vulkan.js';

/** Takes some milliseconds; NVIDIA's tool, where it is there, some hundred. */
export async function findDevices(config: Pick<Config, 'data-dir' | 'device-precision'>): Promise<Found> {
  return {
    cards: await readCards(process.env),
    hidesCards: process.env.CUDA_VISIBLE_DEVICES !== undefined,
    vulkan: readVulkan(process.env),
    cudaEnv: cudaEnvironment(config['data-dir'], process.env),
    precision: config['device-precision'],
    processor: cpus()[0]?.model.trim() ?? 'processor',
    memoryBytes: totalmem(),
  };
}
