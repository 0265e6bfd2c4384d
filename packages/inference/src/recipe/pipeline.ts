/**
 * The Qwen-Image recipe, from text alone or over a picture. Reference: diffusers `pipeline_qwenimage.py` and
 * `pipeline_qwenimage_img2img.py`.
 *
 * Takes a complete request and loaded sessions; gives pixels. Knows nothing of jobs, files or processes.
 */
import type { Architecture } from '@qwen-supervisor/model/architecture';
import { PROMPT_STATES_MAX, TEMPLATE_TOKENS } from '@qwen-supervisor/model/prompt-template';
import { jointRotary } from '@qwen-supervisor/model/transformer';
import { type JobRequest, skippedSteps, stepsOf, tokensOf } from '@qwen-supervisor/protocol/job-request';
import { Tensor } from 'onnxruntime-node';
import { requireFinite } from './finite.js';
import { guide } from './guidance.js';
import { keepUnmasked, type LatentMask, latentMask, pasteUnmasked } from './inpaint.js';
import { fromRgb, packLatents, toRgb, unpackLatents } from './latents.js';
import { gaussianNoise } from './noise.js';
import { makeSchedule, type Schedule } from './scheduler.js';
import { latentSize, type Part, type Sessions } from './sessions.js';

export interface StepState {
  /** Completed steps. */
  step: number;
  /** Packed latents [tokens, inChannels] after the step; overwritten by the next one. */
  latents: Float32Array;
  /** The model's prediction of that step, same layout. */
  velocity: Float32Array;
  /** Noise share that is left. */
  sigma: number;
  rows: number;
  columns: number;
}

export interface Observer {
  onStep(state: StepState): void;
  /** A part of the step after the completed ones is done: all together so much of it, 0 to 1. */
  onPart(share: number): void;
  /** No step is left; the picture is decoded next. */
  onDecoding(): void;
  /** Asked before every step, between the parts of the transformer, and before the picture is decoded. */
  isCancelled(): boolean;
  /** Asked when cancels are: whether the picture is wanted as far as it is. */
  isInterrupted(): boolean;
}

export interface Picture {
  /** RGBRGB…, width * height * 3 bytes. */
  pixels: Uint8Array;
  width: number;
  height: number;
}

/** Text states [n, hidden] of each prompt. */
export interface Prompts {
  positive: Float32Array;
  /** Null without guidance. */
  negative: Float32Array | null;
}

/** Latents between two steps: where denoising begins (they are overwritten), and where it has ended. */
export interface Reached {
  /** Completed steps. */
  step: number;
  /** Packed latents [tokens, inChannels]. */
  latents: Float32Array;
}

/** What is drawn over: the request's initImage, and its mask. */
export interface Over {
  /** RGBRGB…, width * height * 3 bytes. */
  pixels: Uint8Array;
  /** width * height bytes: 255 is drawn anew, 0 stays. Null: all is drawn anew. */
  mask: Uint8Array | null;
}

/** Draws a picture, from `start` on if that is given; null if the observer cancelled it. */
export async function drawPicture(
  sessions: Sessions,
  request: JobRequest,
  observer: Observer,
  start: Reached | null = null,
  over: Over | null = null,
): Promise<(Picture & { step: number }) | null> {
  const { width, height } = request;
  const { h, w } = latentSize(width, height);
  sessions.nextPicture(width * height);
  // 1. Text states of the prompt, and of the negative prompt if guidance is on.
  const prompts = await encodePrompts(sessions, request, observer.isCancelled);
  if (prompts === null) return null;
  // 2. Sigmas from 1 to 0, shifted by the picture's size.
  const schedule = scheduleOf(sessions, request);
  // 3. Latents: those of the checkpoint; or noise, alone or over a picture. Parts that stay are needed at every step.
  const noise = firstNoise(sessions, request);
  const isOver = over !== null && (start === null || over.mask !== null);
  const clean = isOver ? await encodeClean(sessions, request, over.pixels, observer.isCancelled) : null;
  if (isOver && clean === null) return null;
  const mask = clean && over?.mask ? { ...latentMask(over.mask, width, height), clean, noise } : null;
  const from = start ?? { step: 0, latents: firstLatents(request, schedule, noise, clean) };
  // 4. and 5. Modulation of all timesteps at once, and the denoising steps that read it.
  const reached = await denoise(sessions, request, prompts, schedule, from, observer, mask);
  if (reached === null || observer.isCancelled()) return null;
  // 6. Packed latents to pixels.
  observer.onDecoding();
  const decoded = await decodePacked(sessions, reached.latents, h / 2, w / 2, observer.isCancelled);
  if (decoded === null) return null;
  requireFinite(decoded, 'the picture that was decoded');
  const pixels = toRgb(decoded, height, width);
  if (over?.mask) pasteUnmasked(pixels, over.pixels, over.mask);
  return { pixels, width, height, step: reached.step };
}

/** 1. Each prompt has its own length; without guidance there is no negative one. Null if cancelled. */
export async function encodePrompts(
  sessions: Sessions,
  request: JobRequest,
  isCancelled: () => boolean,
): Promise<Prompts | null> {
  const statesOf = (prompt: string) =>
    sessions.textStates.of(prompt, () => promptStates(sessions, prompt, isCancelled));
  const positive = await statesOf(request.prompt);
  if (positive === null || isCancelled()) return null;
  if (request.trueCfgScale <= 1) return { positive, negative: null };
  const negative = await statesOf(request.negativePrompt);
  return negative && { positive, negative };
}

/** 2. */
export function scheduleOf(sessions: Sessions, { numInferenceSteps, width, height }: JobRequest): Schedule {
  return makeSchedule(sessions.architecture.scheduler, numInferenceSteps, tokensOf({ width, height }));
}

/** 3. Of the seed. */
export function firstNoise({ architecture }: Sessions, { seed, width, height }: JobRequest): Float32Array {
  const { h, w } = latentSize(width, height);
  return gaussianNoise(seed, h * w * architecture.vae.zDim);
}

/**
 * 3. The packed latents of a picture: the mean of the encoder's distribution, for a draw of its own would add nothing
 * that can be seen.
 */
async function encodeClean(
  sessions: Sessions,
  request: JobRequest,
  pixels: Uint8Array,
  isCancelled: () => boolean,
): Promise<Float32Array | null> {
  const { width, height } = request;
  const encoded = await sessions.encode(fromRgb(pixels, height, width), height, width, isCancelled);
  if (encoded === null) return null;
  requireFinite(encoded, 'the picture to draw over, encoded,');
  return packClean(sessions, request, encoded);
}

/** [zDim, h, w] as the encoder gives them → packed, normalised. */
export function packClean(
  { architecture }: Sessions,
  { width, height }: JobRequest,
  encoded: Float32Array,
): Float32Array {
  const { latentsMean, latentsStd } = architecture.vae;
  const { h, w } = latentSize(width, height);
  return packLatents(encoded, h / 2, w / 2, latentsMean, latentsStd);
}

/** 3. The latents before the first step: noise, or `clean` under as much noise as the first step made expects. */
export function firstLatents(
  request: JobRequest,
  { sigmas }: Schedule,
  noise: Float32Array,
  clean: Float32Array | null,
): Float32Array {
  // A copy: the noise is needed again where parts of a picture stay.
  if (clean === null) return noise.slice();
  const sigma = sigmas[skippedSteps(request)] as number;
  return noise.map((value, i) => sigma * value + (1 - sigma) * (clean[i] as number));
}

/**
 * 4. and 5. Denoises `start` from the step that it has reached; null if cancelled. Interrupted, it gives the clean
 * latents that its last step points at.
 */
export async function denoise(
  sessions: Sessions,
  request: JobRequest,
  { positive, negative }: Prompts,
  { sigmas, timesteps }: Schedule,
  start: Reached,
  observer: Observer,
  mask: LatentMask | null = null,
): Promise<Reached | null> {
  const { architecture } = sessions;
  const { h, w } = latentSize(request.width, request.height);
  const [rows, columns] = [h / 2, w / 2];
  const tokens = rows * columns;
  const { inChannels } = architecture.transformer;
  const { latents } = start;

  const skipped = skippedSteps(request);
  const steps = stepsOf(request);
  // 4. Everything that depends on the timestep alone, of all steps in one pass over its weights. The model takes the
  // timestep over 1000, whatever num_train_timesteps is.
  const times = timesteps.map((t) => t / 1000);
  if (!(await sessions.modulation.prepare(times.slice(skipped + start.step), observer.isCancelled))) return null;
  const parts = await sessions.transformer(observer.isCancelled);
  if (parts === null) return null;

  // 5. All buffers are made here once; each step's inputs and outputs are views of them.
  const velocity = new Float32Array(tokens * inChannels);
  const latentsTensor = new Tensor('float32', latents, [tokens, inChannels]);
  const passes = [new Pass(architecture, parts, positive, rows, columns, velocity)];
  const negativeVelocity = negative ? new Float32Array(tokens * inChannels) : null;
  if (negative && negativeVelocity)
    passes.push(new Pass(architecture, parts, negative, rows, columns, negativeVelocity));

  /** What the last step points at; null before the first. */
  let clean: Float32Array | null = null;
  for (let step = start.step; step < steps; step++) {
    const isInterrupted = () => clean !== null && observer.isInterrupted();
    const isUnwanted = () => observer.isCancelled() || isInterrupted();
    const i = skipped + step;
    const row = await sessions.modulation.of(times[i] as number, observer.isCancelled);
    if (row === null) return null;
    let done = 0;
    const onPart = () => observer.onPart(++done / (passes.length * parts.length));
    let whole = !isUnwanted();
    for (const pass of passes) whole = whole && (await pass.run(latentsTensor, row, isUnwanted, onPart));
    if (observer.isCancelled()) return null;
    if (!whole) return { step, latents: clean as unknown as Float32Array };
    if (negativeVelocity) guide(velocity, negativeVelocity, request.trueCfgScale, inChannels);
    const sigma = sigmas[i + 1] as number;
    eulerStep(latents, velocity, sigma - (sigmas[i] as number));
    if (mask) keepUnmasked(latents, mask, sigma);
    requireFinite(latents, `step ${step + 1} of ${steps}`);
    const state = { step: step + 1, latents, velocity, sigma, rows, columns };
    observer.onStep(state);
    clean = cleanLatents(state);
  }
  return { step: steps, latents };
}

/** x_{i+1} = x_i + (sigma_{i+1} - sigma_i) * v, in place. Reference: `FlowMatchEulerDiscreteScheduler.step`. */
function eulerStep(latents: Float32Array, velocity: Float32Array, dt: number): void {
  for (let i = 0; i < latents.length; i++) latents[i] = (latents[i] as number) + dt * (velocity[i] as number);
}

/** x_0 = x_i - sigma_i * v: what the last step takes the picture to be, without the noise that is left. Packed. */
export function cleanLatents({ latents, velocity, sigma }: StepState): Float32Array {
  return latents.map((value, i) => value - sigma * (velocity[i] as number));
}

/** 6. Packed latents → image [3, 16 * rows, 16 * columns] in [-1, 1]. */
export function decodePacked(
  sessions: Sessions,
  latents: Float32Array,
  rows: number,
  columns: number,
  isCancelled?: () => boolean,
): Promise<Float32Array | null> {
  const { latentsMean, latentsStd } = sessions.architecture.vae;
  const unpacked = unpackLatents(latents, rows, columns, latentsMean, latentsStd);
  return sessions.decode(unpacked, 2 * rows, 2 * columns, isCancelled);
}

/**
 * States [n, hidden] of a prompt, the template's own dropped; null if cancelled. Longer prompts are cut, as the
 * reference cuts them.
 */
async function promptStates(
  sessions: Sessions,
  prompt: string,
  isCancelled: () => boolean,
): Promise<Float32Array | null> {
  // Attention is causal: states do not depend on the tokens that are cut off.
  const ids = sessions.tokenizer.encodePrompt(prompt).slice(0, TEMPLATE_TOKENS + PROMPT_STATES_MAX);
  const states = await sessions.encodeText(ids, isCancelled);
  if (states === null) return null;
  requireFinite(states, 'the text of the prompt');
  return states.subarray(TEMPLATE_TOKENS * sessions.architecture.textEncoder.hiddenSize);
}

/** One forward pass of the transformer for fixed text states, into a fixed buffer. */
export class Pass {
  readonly #dim: number;
  readonly #parts: Part[];
  readonly #text: Tensor;
  readonly #rotary: Record<'cos' | 'sin', Tensor>;
  readonly #fetches: { velocity: Tensor };

  constructor(
    { transformer }: Architecture,
    parts: Part[],
    text: Float32Array,
    rows: number,
    columns: number,
    velocity: Float32Array,
  ) {
    const textTokens = text.length / transformer.jointAttentionDim;
    const tokens = rows * columns;
    const { cos, sin } = jointRotary(transformer, textTokens, rows, columns);
    const rotaryDims = [1, textTokens + tokens, transformer.headDim / 2];
    this.#dim = transformer.dim;
    this.#parts = parts;
    this.#text = new Tensor('float32', text, [textTokens, transformer.jointAttentionDim]);
    this.#rotary = { cos: new Tensor('float32', cos, rotaryDims), sin: new Tensor('float32', sin, rotaryDims) };
    this.#fetches = { velocity: new Tensor('float32', velocity, [tokens, transformer.inChannels]) };
  }

  /**
   * Part after part of the network; `onPart` hears of each. `modulation`: of one timestep. False where `isUnwanted`
   * said so between two parts.
   */
  async run(latents: Tensor, modulation: Float32Array, isUnwanted = () => false, onPart = () => {}): Promise<boolean> {
    const inputs: Record<string, Tensor> = { latents, text: this.#text };
    /** What the part before has given. */
    let streams: Record<string, Tensor> | null = null;
    try {
      for (const [n, { session, firstRow, rows }] of this.#parts.entries()) {
        if (n > 0 && isUnwanted()) return false;
        const part = modulation.subarray(firstRow * this.#dim, (firstRow + rows) * this.#dim);
        const given = streams ?? inputs;
        const feeds = { ...given, ...this.#rotary, modulation: new Tensor('float32', part, [part.length]) };
        if (session.outputNames.includes('velocity')) await session.run(feeds, this.#fetches);
        else {
          const { nextImage, nextWords } = (await session.run(feeds)) as Record<'nextImage' | 'nextWords', Tensor>;
          dispose(streams);
          streams = { image: nextImage, words: nextWords };
        }
        onPart();
      }
      return true;
    } finally {
      dispose(streams);
    }
  }
}

/** Those that lie on a card stay there until they are given back. */
function dispose(tensors: Record<string, Tensor> | null): void {
  for (const tensor of Object.values(tensors ?? {})) tensor.dispose();
}
