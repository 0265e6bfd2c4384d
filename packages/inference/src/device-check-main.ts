/**
 * Entry of the check of a device, a process of its own: whether it computes, and computes right. Prints one line of
 * JSON.
 */
import type { DeviceAnswer } from '@qwen-supervisor/protocol/device';
import { toCodedError } from '@qwen-supervisor/protocol/errors';
import { requireRuntimeLibraries } from './runtime-libraries.js';

const [, , device = 'cpu'] = process.argv;
process.stdout.write(`\n${JSON.stringify(await check())}\n`);
// Some drivers do not let their threads go.
process.exit();

async function check(): Promise<DeviceAnswer> {
  try {
    await requireRuntimeLibraries();
    const { abilityOf } = await import('./recipe/device.js');
    return await abilityOf(device);
  } catch (error) {
    return { error: toCodedError(error).toObject() };
  }
}
