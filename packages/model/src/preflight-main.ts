/**
 * Entry of the look at a checkpoint before it is loaded: a process of its own, because whoever asks must not stand
 * still with a disk that does not answer. Prints one JSON object.
 */
import { toCodedError } from '@qwen-supervisor/protocol/errors';
import { modelInfo } from './descriptions.js';
import { buildGraphs } from './graphs.js';
import type { PreflightAnswer } from './preflight.js';
import { openModel } from './registry/open-model.js';

const [target = '', dataDir = ''] = process.argv.slice(2);
process.stdout.write(JSON.stringify(look()));

function look(): PreflightAnswer {
  try {
    const { checkpoint, name } = openModel(dataDir, target);
    // Building checks that every tensor is there, in the shape that the configs ask for.
    buildGraphs(checkpoint);
    return { model: modelInfo(checkpoint.architecture, name) };
  } catch (error) {
    return { error: toCodedError(error).toObject() };
  }
}
