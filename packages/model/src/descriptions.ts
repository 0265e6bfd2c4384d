/** What we know about models beyond their configs: a name, sizes, and what a request may leave out. */
import { shrinkTo } from '@qwen-supervisor/protocol/job-request';
import type { ModelInfo } from '@qwen-supervisor/protocol/messages';
import type { Architecture } from './architecture.js';

/** A model as its authors describe it. */
export type Description = Omit<ModelInfo, 'plan'>;

type Known = Omit<Description, 'folder'> & { matches(architecture: Architecture): boolean };

/** Values that the authors of Qwen-Image recommend. Reference: its README. */
const QWEN_IMAGE: Known = {
  id: 'qwen-image',
  defaults: { width: 1328, height: 1328, numInferenceSteps: 50, trueCfgScale: 4, negativePrompt: ' ' },
  sizes: {
    '1:1': [1328, 1328],
    '16:9': [1664, 928],
    '9:16': [928, 1664],
    '4:3': [1472, 1104],
    '3:4': [1104, 1472],
    '3:2': [1584, 1056],
    '2:3': [1056, 1584],
  },
  promptSuffix: { en: ', Ultra HD, 4K, cinematic composition.', zh: ', 超清，4K，电影级构图.' },
  matches: ({ transformer }) => transformer.numLayers === 60 && transformer.dim === 3072,
};

/** The square is what the pocket model was trained on; the others have about as many pixels. */
const POCKET: Known = {
  id: 'pocket',
  defaults: { width: 128, height: 128, numInferenceSteps: 20, trueCfgScale: 4, negativePrompt: ' ' },
  sizes: {
    '1:1': [128, 128],
    '16:9': [176, 96],
    '9:16': [96, 176],
    '4:3': [144, 112],
    '3:4': [112, 144],
    '3:2': [160, 112],
    '2:3': [112, 160],
  },
  promptSuffix: null,
  matches: ({ transformer, textEncoder, vae }) =>
    transformer.numLayers === 8 && transformer.dim === 192 && textEncoder.numLayers === 3 && vae.baseDim === 24,
};

/** The description of a checkpoint; one of other sizes is drawn with Qwen-Image's values under its folder's name. */
export function describeModel(architecture: Architecture, folder: string): Description {
  const known = [QWEN_IMAGE, POCKET].find((model) => model.matches(architecture));
  const { id, defaults, sizes, promptSuffix } = known ?? { ...QWEN_IMAGE, id: folder };
  return { id, folder, defaults, sizes, promptSuffix };
}

/** With sizes of at most so many pixels, for a machine that has no memory for larger ones. */
export function withinPixels(description: Description, pixels: number): Description {
  const { defaults, sizes } = description;
  const fitted = Object.entries(sizes).map(([ratio, [width, height]]): [string, [number, number]] => {
    const size = shrinkTo({ width, height }, pixels);
    return [ratio, [size.width, size.height]];
  });
  return {
    ...description,
    defaults: { ...defaults, ...shrinkTo(defaults, pixels) },
    sizes: Object.fromEntries(fitted),
  };
}
