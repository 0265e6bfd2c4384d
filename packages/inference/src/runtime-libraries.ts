/**
 * What the model is computed with are libraries for one kind of system and processor: where they cannot be loaded, no
 * new process will load them.
 */
import { CodedError } from '@qwen-supervisor/protocol/errors';

/** How Node and sharp say that a library is not there, or is for another system. */
const UNLOADABLE = /ERR_DLOPEN_FAILED|ERR_MODULE_NOT_FOUND|MODULE_NOT_FOUND|Could not load the "sharp" module/;

/** Loads them, before anything that imports them. @throws CodedError RUNTIME_UNLOADABLE */
export async function requireRuntimeLibraries(): Promise<void> {
  try {
    // By themselves: what fails within a graph of modules fails once for each that asks for it.
    await import('onnxruntime-node');
    await import('sharp');
  } catch (error) {
    const { code = '', message } = error as Error & { code?: string };
    if (!UNLOADABLE.test(`${code} ${message}`)) throw error;
    console.error(message);
    const [first = ''] = message.split('\n');
    throw new CodedError('RUNTIME_UNLOADABLE', `a library cannot be loaded: ${first.slice(0, 400)}`);
  }
}
