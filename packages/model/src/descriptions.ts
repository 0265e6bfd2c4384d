/** What we know about models beyond their configs: a name, sizes, and what a request may leave out. */
import type { ModelInfo } from '@qwen-supervisor/protocol/messages';
import type { Checkpoint } from './checkpoint.js';
import { LIGHTNING_STEPS } from './lightning.js';
import { isCardOf } from './model-card.js';

/** A model as its authors describe it. */
export type Description = Omit<ModelInfo, 'plan'>;

type Known = Omit<Description, 'folder' | 'distilled'> & {
  matches(checkpoint: Pick<Checkpoint, 'architecture' | 'folder'>): boolean;
};

/** Values that the authors of Qwen-Image recommend. Reference: its README. */
const QWEN_IMAGE: Known = {
  id: 'qwen-image',
  defaults: { width: 1328, height: 1328, numInferenceSteps: 50, trueCfgScale: 4, negativePrompt: ' ' },
  presets: {
    fast: { numInferenceSteps: 20, trueCfgScale: 4 },
    balanced: { numInferenceSteps: 30, trueCfgScale: 4 },
    high: { numInferenceSteps: 50, trueCfgScale: 4 },
  },
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
  examples: [
    'A coffee shop entrance with a chalkboard sign that reads "Fresh bread from six"',
    'A lighthouse on a cliff in a storm, oil painting',
    '一只戴着红围巾的狐狸坐在雪地里，清晨的阳光',
  ],
  note: null,
  matches: ({ architecture: { transformer } }) => transformer.numLayers === 60 && transformer.dim === 3072,
};

/**
 * Qwen-Image-2512 has other weights in the same configs and the same names: nothing but its model card tells the two
 * apart, and nothing but the negative prompt and the suffix is different. Reference: its README.
 */
const QWEN_IMAGE_2512: Known = {
  ...QWEN_IMAGE,
  id: 'qwen-image-2512',
  defaults: {
    ...QWEN_IMAGE.defaults,
    negativePrompt:
      '低分辨率，低画质，肢体畸形，手指畸形，画面过饱和，蜡像感，人脸无细节，过度光滑，画面具有AI感。构图混乱。文字模糊，扭曲。',
  },
  promptSuffix: null,
  matches: (checkpoint) => QWEN_IMAGE.matches(checkpoint) && isCardOf(checkpoint.folder, 'Qwen-Image-2512'),
};

/** The square is what the pocket model was trained on; the others have about as many pixels. */
const POCKET: Known = {
  id: 'pocket',
  defaults: { width: 128, height: 128, numInferenceSteps: 20, trueCfgScale: 4, negativePrompt: ' ' },
  presets: {
    fast: { numInferenceSteps: 10, trueCfgScale: 4 },
    balanced: { numInferenceSteps: 20, trueCfgScale: 4 },
    high: { numInferenceSteps: 40, trueCfgScale: 4 },
  },
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
  examples: ['a fox on a teal background', 'a cute cat, blue background', 'rocket on black'],
  note: 'The pocket model is for trying things out: it knows 182 emoji subjects and 12 background colours.',
  matches: ({ architecture: { transformer, textEncoder, vae } }) =>
    transformer.numLayers === 8 && transformer.dim === 192 && textEncoder.numLayers === 3 && vae.baseDim === 24,
};

/** The description of a checkpoint; one of other sizes is drawn with Qwen-Image's values under its folder's name. */
export function describeModel(
  checkpoint: Pick<Checkpoint, 'architecture' | 'folder' | 'lightning'>,
  folder: string,
): Description {
  const known = [QWEN_IMAGE_2512, QWEN_IMAGE, POCKET].find((model) => model.matches(checkpoint));
  const { matches: _, ...about } = known ?? { ...QWEN_IMAGE, id: folder };
  const { id, defaults } = about;
  const description = { ...about, folder, distilled: null };
  const { lightning } = checkpoint;
  if (!lightning) return description;
  const drawn = { numInferenceSteps: lightning.steps, trueCfgScale: 1 };
  const most = { numInferenceSteps: Math.max(...LIGHTNING_STEPS), trueCfgScale: 1 };
  return {
    ...description,
    id: `${id}-lightning`,
    defaults: { ...defaults, ...drawn },
    presets: { fast: { ...drawn, numInferenceSteps: Math.min(...LIGHTNING_STEPS) }, balanced: drawn, high: most },
    distilled: { steps: [...LIGHTNING_STEPS] },
  };
}
