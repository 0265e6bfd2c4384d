/**
 * Entry of the look at a checkpoint before it is loaded: a process of its own, because whoever asks must not stand
 * still with a disk that does not answer. Prints one JSON object.
 */
import { basename, dirname } from 'node:path';
import { toCodedError } from '@qwen-supervisor/protocol/errors';
import { openCheckpoint } from './checkpoint.js';
import { modelInfo } from './descriptions.js';
import { buildGraphs } from './graphs.js';
import type { PreflightAnswer } from './preflight.js';

const [path = ''] = process.argv.slice(2);
process.stdout.write(JSON.stringify(look()));

function look(): PreflightAnswer {
  try {
    const checkpoint = openCheckpoint(path);
    // Building checks that every tensor is there, in the shape that the configs ask for.
    buildGraphs(checkpoint);
    return { model: modelInfo(checkpoint.architecture, nameOf(checkpoint.folder)) };
  } catch (error) {
    return { error: toCodedError(error).toObject() };
  }
}

/** A snapshot of the Hugging Face cache is called by its commit, its model by the folder around it. */
function nameOf(folder: string): string {
  const [, name] = /^models--.*--(.+)$/.exec(basename(dirname(dirname(folder)))) ?? [];
  return name ?? basename(folder);
}
