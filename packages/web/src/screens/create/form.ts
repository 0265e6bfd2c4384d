/** What the form holds, and what is asked for with it. Pure. */
import type { ModelAnswer } from '@qwen-supervisor/protocol/answers';
import type { Job } from '@qwen-supervisor/protocol/job';
import type { NativeRequest } from '@qwen-supervisor/protocol/job-request';
import { PARAMETERS, REQUEST } from '@qwen-supervisor/protocol/picture-text';
import { seedAfter } from '@qwen-supervisor/protocol/seed';

export interface Source {
  /** What the API takes: a data URL, the id of a picture, or the SHA-256 of one that was drawn over. */
  value: string;
  /** Address of what is shown of it. */
  shown: string;
}

export interface Form {
  prompt: string;
  negativePrompt: string | null;
  /** Null: the model's. */
  size: { width: number; height: number } | null;
  steps: number | null;
  scale: number | null;
  seed: number;
  isSeedLocked: boolean;
  count: number;
  source: Source | null;
  strength: number;
}

export const COUNT_MAX = 16;
export const SIDE = { min: 16, max: 4096, step: 16 };

export function emptyForm(seed: number): Form {
  return {
    prompt: '',
    negativePrompt: null,
    size: null,
    steps: null,
    scale: null,
    seed,
    isSeedLocked: false,
    count: 1,
    source: null,
    strength: 0.75,
  };
}

/** What is left out is the model's, and is said so that the page and the server cannot differ. */
export function toRequests(form: Form, model: ModelAnswer): NativeRequest[] {
  const { defaults, distilled } = model;
  const { source } = form;
  const isDefaultSize = form.size === null && source !== null;
  return Array.from({ length: form.count }, (_, i) => ({
    prompt: form.prompt,
    ...(form.negativePrompt === null ? {} : { negativePrompt: form.negativePrompt || ' ' }),
    // A picture that is drawn over keeps its shape.
    ...(isDefaultSize ? {} : sizeOf(form, model)),
    numInferenceSteps: form.steps ?? defaults.numInferenceSteps,
    trueCfgScale: distilled ? defaults.trueCfgScale : (form.scale ?? defaults.trueCfgScale),
    seed: seedAfter(form.seed, i),
    ...(source ? { initImage: source.value, strength: form.strength } : {}),
  }));
}

export function sizeOf({ size }: Form, { defaults }: ModelAnswer): { width: number; height: number } {
  return size ?? { width: defaults.width, height: defaults.height };
}

/** Why it cannot be sent; null where it can. */
export function whyNot(form: Form, model: ModelAnswer): string | null {
  const { width, height } = sizeOf(form, model);
  const { maxPixels, maxSteps } = model.limits;
  const steps = form.steps ?? model.defaults.numInferenceSteps;
  if (form.prompt.trim() === '') return 'Describe a picture first.';
  if ([width, height].some((side) => side % SIDE.step !== 0 || side < SIDE.min || side > SIDE.max))
    return `Width and height must be multiples of ${SIDE.step}, from ${SIDE.min} to ${SIDE.max}.`;
  if (width * height > maxPixels)
    return `${width}×${height} is more than this server draws here: ${(maxPixels / 1e6).toFixed(1)} megapixels.`;
  if (!Number.isInteger(steps) || steps < 1 || steps > maxSteps) return `Steps must be from 1 to ${maxSteps}.`;
  if (model.distilled && !model.distilled.steps.includes(steps))
    return `This model draws in ${model.distilled.steps.join(' or ')} steps.`;
  if (form.source && form.source.value.length * form.count > model.limits.maxUploadBytes)
    return `${form.count} times this picture is more than the server takes at once: send fewer at a time.`;
  if (!Number.isSafeInteger(form.seed) || form.seed < 0) return 'The seed must be a whole number from 0.';
  return null;
}

/** Which preset the numbers are; null for none. */
export function presetOf(form: Form, { presets, defaults }: ModelAnswer): string | null {
  const steps = form.steps ?? defaults.numInferenceSteps;
  const scale = form.scale ?? defaults.trueCfgScale;
  const found = Object.entries(presets).find(
    ([, preset]) => preset.numInferenceSteps === steps && preset.trueCfgScale === scale,
  );
  return found?.[0] ?? null;
}

/** The form that asks for what a job was: with its seed, locked, or with the one that is there. */
export function fromJob(job: Job, before: Form, withSeed: boolean, root: string): Form {
  return {
    prompt: job.prompt,
    negativePrompt: job.negativePrompt.trim() === '' ? null : job.negativePrompt,
    size: { width: job.width, height: job.height },
    steps: job.numInferenceSteps,
    scale: job.trueCfgScale,
    seed: withSeed ? job.seed : before.seed,
    isSeedLocked: withSeed ? true : before.isSeedLocked,
    count: 1,
    source: job.initImage === null ? null : { value: job.initImage, shown: `${root}api/v1/inputs/${job.initImage}` },
    strength: job.strength ?? before.strength,
  };
}

/**
 * What the texts in a picture say about how it was made: ours, or A1111's. Null where they say nothing of it.
 * Reference: A1111 `modules/infotext_utils.py`, `parse_generation_parameters`.
 */
export function fromTexts(texts: Record<string, string>, before: Form): Form | null {
  const own = texts[REQUEST] === undefined ? null : fromOwn(texts[REQUEST], before);
  return own ?? (texts[PARAMETERS] === undefined ? null : fromInfotext(texts[PARAMETERS], before));
}

function fromOwn(json: string, before: Form): Form | null {
  try {
    const { request } = JSON.parse(json) as { request: Partial<Job> };
    const { prompt, negativePrompt = ' ', width, height, numInferenceSteps, trueCfgScale, seed } = request;
    const numbers = [width, height, numInferenceSteps, trueCfgScale, seed];
    if (typeof prompt !== 'string' || numbers.some((number) => typeof number !== 'number')) return null;
    return fromNumbers(before, {
      prompt,
      negativePrompt: String(negativePrompt),
      width: width as number,
      height: height as number,
      steps: numInferenceSteps as number,
      scale: trueCfgScale as number,
      seed: seed as number,
    });
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return null;
    throw error;
  }
}

function fromInfotext(text: string, before: Form): Form | null {
  const lines = text.split('\n');
  const last = lines.findLastIndex((line) => /^Steps: \d+/.test(line));
  if (last < 0) return null;
  const settings = new Map(
    [...(lines[last] ?? '').matchAll(/\s*([\w ]+):\s*([^,]+)(?:,|$)/g)].map((m) => [m[1], m[2]]),
  );
  const negative = lines.findIndex((line, i) => i < last && line.startsWith('Negative prompt: '));
  const prompt = lines.slice(0, negative < 0 ? last : negative).join('\n');
  const [width, height] = (settings.get('Size') ?? '').split('x').map(Number);
  if (prompt.trim() === '') return null;
  return fromNumbers(before, {
    prompt,
    negativePrompt: negative < 0 ? ' ' : lines.slice(negative, last).join('\n').slice('Negative prompt: '.length),
    width: width ?? Number.NaN,
    height: height ?? Number.NaN,
    steps: Number(settings.get('Steps')),
    scale: Number(settings.get('CFG scale')),
    seed: Number(settings.get('Seed')),
  });
}

interface Found {
  prompt: string;
  negativePrompt: string;
  width: number;
  height: number;
  steps: number;
  scale: number;
  seed: number;
}

/** What makes no sense here is left as it was. */
function fromNumbers(before: Form, found: Found): Form {
  const { width, height, steps, scale, seed } = found;
  const isSize = [width, height].every((side) => side % SIDE.step === 0 && side >= SIDE.min && side <= SIDE.max);
  return {
    ...before,
    prompt: found.prompt,
    negativePrompt: found.negativePrompt.trim() === '' ? null : found.negativePrompt,
    size: isSize ? { width, height } : before.size,
    steps: Number.isInteger(steps) && steps > 0 ? steps : before.steps,
    scale: Number.isFinite(scale) && scale >= 0 ? scale : before.scale,
    ...(Number.isSafeInteger(seed) && seed >= 0 ? { seed, isSeedLocked: true } : {}),
    source: null,
  };
}
