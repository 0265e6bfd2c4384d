/**
 * What a picture's file says about how it was made: the request and the model, nothing of when or where, so that the
 * same job gives the same bytes. As A1111's `parameters` text, which most tools read, and as our JSON.
 */
import type { JobRequest } from './job-request.js';

/** Keywords in the PNG. */
export const PARAMETERS = 'parameters';
export const REQUEST = 'qwen-supervisor';

export function pictureTexts(request: JobRequest, model: string): Record<string, string> {
  return { [PARAMETERS]: infotext(request, model), [REQUEST]: JSON.stringify({ request, model }) };
}

/** Reference: A1111 `modules/infotext_utils.py`, `create_infotext`. */
export function infotext(request: JobRequest, model: string): string {
  const fields = {
    Steps: request.numInferenceSteps,
    Sampler: 'Euler',
    'CFG scale': request.trueCfgScale,
    Seed: request.seed,
    Size: `${request.width}x${request.height}`,
    Model: model,
    ...(request.strength === null ? {} : { 'Denoising strength': request.strength }),
  };
  const negative = request.negativePrompt.trim() === '' ? [] : [`Negative prompt: ${request.negativePrompt}`];
  const settings = Object.entries(fields).map(([name, value]) => `${name}: ${value}`);
  return [request.prompt, ...negative, settings.join(', ')].join('\n');
}
