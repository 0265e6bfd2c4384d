/** What we know about models beyond their configs: a name, and what a request may leave out. */
import type { ModelDefaults } from '@qwen-supervisor/protocol/job';
import type { Architecture } from './architecture.js';

export interface ModelDescription {
  id: string;
  defaults: ModelDefaults;
  matches(architecture: Architecture): boolean;
}

/** Values that the authors of Qwen-Image recommend. */
const QWEN_IMAGE: ModelDescription = {
  id: 'qwen-image',
  defaults: { width: 1328, height: 1328, numInferenceSteps: 50, trueCfgScale: 4, negativePrompt: ' ' },
  matches: ({ transformer }) => transformer.numLayers === 60 && transformer.dim === 3072,
};

/** The size that the pocket model was trained on. */
const POCKET: ModelDescription = {
  id: 'pocket',
  defaults: { width: 128, height: 128, numInferenceSteps: 20, trueCfgScale: 4, negativePrompt: ' ' },
  matches: ({ transformer, textEncoder, vae }) =>
    transformer.numLayers === 8 && transformer.dim === 192 && textEncoder.numLayers === 3 && vae.baseDim === 24,
};

/** The description of a checkpoint; one of other sizes is drawn with Qwen-Image's values under its folder's name. */
export function describeModel(architecture: Architecture, folderName: string): { id: string; defaults: ModelDefaults } {
  const known = [QWEN_IMAGE, POCKET].find((model) => model.matches(architecture));
  return known ?? { id: folderName, defaults: QWEN_IMAGE.defaults };
}
