/**
 * The Qwen-Image text-to-image recipe. Reference: diffusers `pipeline_qwenimage.py`.
 *
 * Takes a complete request and loaded sessions; gives pixels. Knows nothing of jobs, files or processes.
 */
import { PROMPT_STATES_MAX, TEMPLATE_TOKENS } from '@qwen-supervisor/model/prompt-template';
import { jointRotary } from '@qwen-supervisor/model/transformer';
import type { JobRequest } from '@qwen-supervisor/protocol/job';
import { Tensor } from 'onnxruntime-node';
import { guide } from './guidance.js';
import { toRgb, unpackLatents } from './latents.js';
import { gaussianNoise } from './noise.js';
import { makeSchedule } from './scheduler.js';
import { latentSize, modulationLength, type Sessions } from './sessions.js';

/** Memory for the modulation of several timesteps at once, bytes. */
const MODULATION_BYTES_MAX = 512 << 20;

export interface StepState {
  /** Completed steps. */
  step: number;
  /** Packed latents [rows * columns, 64] after the step; overwritten by the next one. */
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
  /** Asked before every step and before the picture is decoded. */
  isCancelled(): boolean;
}

export interface Picture {
  /** RGBRGB…, width * height * 3 bytes. */
  pixels: Uint8Array;
  width: number;
  height: number;
}

/** Where denoising begins: pure noise at step 0, or the latents that another attempt had reached. They are overwritten. */
export interface Start {
  step: number;
  /** Packed latents [rows * columns, 64]. */
  latents: Float32Array;
}

/** Draws a picture, from `start` on if that is given; null if the observer cancelled it. */
export async function drawPicture(
  sessions: Sessions,
  request: JobRequest,
  observer: Observer,
  start: Start | null = null,
): Promise<Picture | null> {
  const { h, w } = latentSize(request.width, request.height);
  const noise = () => gaussianNoise(request.seed, h * w * sessions.architecture.vae.zDim);
  const latents = await denoise(sessions, request, start ?? { step: 0, latents: noise() }, observer);
  if (latents === null || observer.isCancelled()) return null;
  const image = await decodePacked(sessions, latents, h / 2, w / 2);
  return { pixels: toRgb(image, request.height, request.width), width: request.width, height: request.height };
}

/** Steps 1 to 5 of the recipe; null if cancelled. */
export async function denoise(
  sessions: Sessions,
  request: JobRequest,
  start: Start,
  observer: Observer,
): Promise<Float32Array | null> {
  const { architecture } = sessions;
  const { h, w } = latentSize(request.width, request.height);
  const [rows, columns] = [h / 2, w / 2];
  const tokens = rows * columns;
  const channels = architecture.transformer.inChannels;

  // 1. Text states of the prompt, and of the negative prompt if guidance is on. Each has its own length.
  const guided = request.trueCfgScale > 1;
  const positive = await promptStates(sessions, request.prompt);
  const negative = guided ? await promptStates(sessions, request.negativePrompt) : null;

  // 2. Latents, [tokens, 64].
  const { latents } = start;

  // 3. Sigmas from 1 to 0, shifted by the picture's size.
  const { sigmas, timesteps } = makeSchedule(architecture.scheduler, request.numInferenceSteps, tokens);

  // 4. Everything that depends on the timestep alone, for many steps in one pass over its weights.
  const rowLength = modulationLength(architecture);
  const stepsAtOnce = Math.max(1, Math.floor(MODULATION_BYTES_MAX / (4 * rowLength)));
  let modulation: Float32Array = new Float32Array(0);

  // 5. Denoise. All buffers are made here once; each step's inputs and outputs are views of them.
  const velocity = new Float32Array(tokens * channels);
  const latentsTensor = new Tensor('float32', latents, [tokens, channels]);
  const passes = [new Pass(sessions, positive, rows, columns, velocity)];
  const negativeVelocity = guided ? new Float32Array(tokens * channels) : null;
  if (negative && negativeVelocity) passes.push(new Pass(sessions, negative, rows, columns, negativeVelocity));

  for (let step = start.step; step < request.numInferenceSteps; step++) {
    if (observer.isCancelled()) return null;
    const offset = step % stepsAtOnce;
    // The model takes the timestep over 1000, whatever num_train_timesteps is. The batches lie the same however often
    // the job was interrupted: another size of a batch may round otherwise.
    if (offset === 0 || step === start.step) {
      const first = step - offset;
      modulation = await sessions.modulation(timesteps.slice(first, first + stepsAtOnce).map((t) => t / 1000));
    }
    const row = modulation.subarray(offset * rowLength, (offset + 1) * rowLength);
    const rowTensor = new Tensor('float32', row, [rowLength]);
    for (const pass of passes) await pass.run(latentsTensor, rowTensor);
    if (negativeVelocity) guide(velocity, negativeVelocity, request.trueCfgScale, channels);
    const sigma = sigmas[step + 1] as number;
    const delta = sigma - (sigmas[step] as number);
    for (let i = 0; i < latents.length; i++) latents[i] = (latents[i] as number) + delta * (velocity[i] as number);
    observer.onStep({ step: step + 1, latents, velocity, sigma, rows, columns });
  }
  return latents;
}

/** Step 6: packed latents → image [3, 16 * rows, 16 * columns] in [-1, 1]. */
export function decodePacked(
  sessions: Sessions,
  latents: Float32Array,
  rows: number,
  columns: number,
): Promise<Float32Array> {
  const { latentsMean, latentsStd } = sessions.architecture.vae;
  return sessions.decode(unpackLatents(latents, rows, columns, latentsMean, latentsStd), 2 * rows, 2 * columns);
}

/** States [n, hidden] of a prompt, the template's own dropped. Longer prompts are cut, as the reference cuts them. */
async function promptStates(sessions: Sessions, prompt: string): Promise<Float32Array> {
  // Attention is causal: states do not depend on the tokens that are cut off.
  const ids = sessions.tokenizer.encodePrompt(prompt).slice(0, TEMPLATE_TOKENS + PROMPT_STATES_MAX);
  const states = await sessions.encodeText(ids);
  return states.subarray(TEMPLATE_TOKENS * sessions.architecture.textEncoder.hiddenSize);
}

/** One forward pass of the transformer for fixed text states, into a fixed buffer. */
export class Pass {
  readonly #sessions: Sessions;
  readonly #fixed: Record<'text' | 'cos' | 'sin', Tensor>;
  readonly #fetches: { velocity: Tensor };

  constructor(sessions: Sessions, text: Float32Array, rows: number, columns: number, velocity: Float32Array) {
    const { transformer } = sessions.architecture;
    const textTokens = text.length / transformer.jointAttentionDim;
    const tokens = rows * columns;
    const { cos, sin } = jointRotary(transformer, textTokens, rows, columns);
    const rotaryDims = [1, textTokens + tokens, transformer.headDim / 2];
    this.#sessions = sessions;
    this.#fixed = {
      text: new Tensor('float32', text, [textTokens, transformer.jointAttentionDim]),
      cos: new Tensor('float32', cos, rotaryDims),
      sin: new Tensor('float32', sin, rotaryDims),
    };
    this.#fetches = { velocity: new Tensor('float32', velocity, [tokens, transformer.inChannels]) };
  }

  async run(latents: Tensor, modulation: Tensor): Promise<void> {
    await this.#sessions.transformer.run({ ...this.#fixed, latents, modulation }, this.#fetches);
  }
}
