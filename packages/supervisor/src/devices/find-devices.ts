/** Looks at a machine for what could compute pictures. */
import { cpus, totalmem } from 'node:os';
import { readCards } from './cards.js';
import { cudaEnvironment } from './cuda-runtime.js';
import type { Found } from './devices.js';
import { readVulkan } from './vulkan.js';

/** Takes some milliseconds; NVIDIA's tool, where it is there, some hundred. */
export async function findDevices(dataDir: string): Promise<Found> {
  return {
    cards: await readCards(process.env),
    hidesCards: process.env.CUDA_VISIBLE_DEVICES !== undefined,
    vulkan: readVulkan(process.env),
    cudaEnv: cudaEnvironment(dataDir, process.env),
    processor: cpus()[0]?.model.trim() ?? 'processor',
    memoryBytes: totalmem(),
  };
}
