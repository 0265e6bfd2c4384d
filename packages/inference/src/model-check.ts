/**
 * Compares a checkpoint, as this machine computes it, with golden tensors made by diffusers in float32.
 * The format of the golden folder: docs/model-check.md.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Checkpoint, readJson } from '@qwen-supervisor/model/checkpoint';
import { PROMPT_TOKENS_MAX, TEMPLATE_TOKENS } from '@qwen-supervisor/model/prompt-template';
import { readFloat32, readSafetensorsHeader, type TensorEntry } from '@qwen-supervisor/model/safetensors';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { type JobRequest, stepsOf } from '@qwen-supervisor/protocol/job-request';
import { Tensor } from 'onnxruntime-node';
import { z } from 'zod';
import {
  decodePacked,
  denoise,
  encodePrompts,
  firstLatents,
  type Observer,
  Pass,
  type Prompts,
  packClean,
  type Reached,
  scheduleOf,
} from './recipe/pipeline.js';
import { makeSchedule } from './recipe/scheduler.js';
import type { Part, Sessions } from './recipe/sessions.js';

export interface TensorCheck {
  tensor: string;
  /** L2 norm of the difference over L2 norm of the reference; null where it is not a number. */
  relativeError: number | null;
  limit: number;
  ok: boolean;
}

const LIMIT = { tokens: 0, schedule: 1e-5, text: 1e-3, velocity: 1e-3, vae: 1e-3, steps: 2e-3, image: 1e-3 } as const;
/** The one file that folders may lack: the first were made without. */
const IMAGE_TO_IMAGE = 'image_to_image.safetensors';
/** A picture agrees when at least this share of its values is within one step of 8-bit colour. */
const IMAGE_SHARE = 0.999;
const IMAGE_STEP = 1 / 255;

const tokensSchema = z.array(z.object({ text: z.string(), ids: z.array(z.int()) })).min(1);
const scheduleSchema = z.array(
  z.object({
    steps: z.int().min(1),
    imageTokens: z.int().min(1),
    sigmas: z.array(z.number()),
    timesteps: z.array(z.number()),
  }),
);

/**
 * Checks every golden tensor, token list and schedule; `report` gets each as it is done. Gives the files that older
 * folders lack, and what is in which was so not compared. @throws CodedError GOLDEN_INVALID
 */
export async function checkModel(
  checkpoint: Checkpoint,
  sessions: Sessions,
  goldenFolder: string,
  report: (check: TensorCheck) => void,
): Promise<string[]> {
  const golden = openGolden(goldenFolder);
  checkTokens(sessions, golden, report);
  checkSchedules(checkpoint, golden, report);
  await checkText(sessions, golden, report);
  await checkVelocities(sessions, golden, report);
  await checkVae(sessions, golden, report);
  await checkPictures(sessions, golden, report);
  const { imageToImage } = golden;
  if (imageToImage === null) return [IMAGE_TO_IMAGE];
  await checkImageToImage(sessions, golden.tokens, imageToImage, report);
  return [];
}

type Golden = ReturnType<typeof openGolden>;

function openGolden(folder: string) {
  const path = (name: string) => {
    const file = join(folder, name);
    if (!existsSync(file)) throw new CodedError('GOLDEN_INVALID', `${file} is missing`);
    return file;
  };
  const parse = <T extends z.ZodType>(schema: T, name: string): z.infer<T> => {
    const parsed = schema.safeParse(asGoldenError(() => readJson(path(name))));
    if (!parsed.success)
      throw new CodedError('GOLDEN_INVALID', `${join(folder, name)}: ${parsed.error.issues[0]?.message}`);
    return parsed.data;
  };
  const tensors = (name: string) => asGoldenError(() => readSafetensorsHeader(path(name)));
  return {
    folder,
    tokens: parse(tokensSchema, 'tokens.json'),
    schedules: parse(scheduleSchema, 'schedule.json'),
    text: tensors('text.safetensors'),
    transformer: tensors('transformer.safetensors'),
    vae: tensors('vae.safetensors'),
    picture: tensors('picture.safetensors'),
    imageToImage: existsSync(join(folder, IMAGE_TO_IMAGE)) ? tensors(IMAGE_TO_IMAGE) : null,
  };
}

function checkTokens({ tokenizer }: Sessions, golden: Golden, report: (check: TensorCheck) => void): void {
  golden.tokens.forEach(({ text, ids }, index) => {
    const actual = tokenizer.encodePrompt(text);
    const same = actual.length === ids.length && actual.every((id, i) => id === ids[i]);
    report({ tensor: `tokens.${index}`, relativeError: same ? 0 : 1, limit: LIMIT.tokens, ok: same });
  });
}

function checkSchedules({ architecture }: Checkpoint, golden: Golden, report: (check: TensorCheck) => void): void {
  golden.schedules.forEach(({ steps, imageTokens, sigmas, timesteps }) => {
    const actual = makeSchedule(architecture.scheduler, steps, imageTokens);
    const name = `schedule.${steps}x${imageTokens}`;
    report(compare(`${name}.sigmas`, actual.sigmas, Float32Array.from(sigmas), LIMIT.schedule));
    report(compare(`${name}.timesteps`, actual.timesteps, Float32Array.from(timesteps), LIMIT.schedule));
  });
}

async function checkText(sessions: Sessions, golden: Golden, report: (check: TensorCheck) => void): Promise<void> {
  for (const [name, entry] of golden.text) {
    const prompt = golden.tokens[Number(name)];
    if (!prompt) throw new CodedError('GOLDEN_INVALID', `text.safetensors: '${name}' is no index of tokens.json`);
    const ids = prompt.ids.slice(0, TEMPLATE_TOKENS + PROMPT_TOKENS_MAX);
    const states = (await sessions.encodeText(ids)) as Float32Array;
    const actual = states.subarray(TEMPLATE_TOKENS * sessions.architecture.textEncoder.hiddenSize);
    report(compare(`text.${name}`, actual, readFloat32(entry), LIMIT.text));
  }
}

async function checkVelocities(
  sessions: Sessions,
  golden: Golden,
  report: (check: TensorCheck) => void,
): Promise<void> {
  const parts = (await sessions.transformer(() => false)) as Part[];
  for (const [name, entry] of golden.transformer) {
    const match = /^((\d+)x(\d+))\.prompt(\d+)\.t([\d.]+)\.velocity$/.exec(name);
    if (!match) continue;
    const [, size, width, height, prompt, time] = match as unknown as [string, string, string, string, string, string];
    const [rows, columns] = [Number(height) / 16, Number(width) / 16];
    const velocity = new Float32Array(rows * columns * sessions.architecture.transformer.inChannels);
    const pass = new Pass(
      sessions.architecture,
      parts,
      readFloat32(need(golden.text, prompt)),
      rows,
      columns,
      velocity,
    );
    const latents = readFloat32(need(golden.transformer, `${size}.latents`));
    const modulation = (await sessions.modulation.of(Number(time))) as Float32Array;
    await pass.run(new Tensor('float32', latents, [rows * columns, latents.length / (rows * columns)]), modulation);
    report(compare(`transformer.${name}`, velocity, readFloat32(entry), LIMIT.velocity));
  }
}

async function checkVae(sessions: Sessions, golden: Golden, report: (check: TensorCheck) => void): Promise<void> {
  for (const [name, entry] of golden.vae) {
    const match = /^((\d+)x(\d+))\.(decoded|encoded)$/.exec(name);
    if (!match) continue;
    const [, size, width, height, way] = match as unknown as [string, string, string, string, string];
    const actual =
      way === 'decoded'
        ? await sessions.decode(readFloat32(need(golden.vae, `${size}.latents`)), Number(height) / 8, Number(width) / 8)
        : await sessions.encode(readFloat32(need(golden.vae, `${size}.image`)), Number(height), Number(width));
    report(compare(`vae.${name}`, actual as Float32Array, readFloat32(entry), LIMIT.vae));
  }
}

/**
 * Whole pictures from the golden noise: prompt 0 of tokens.json, with guidance 4 and a blank negative prompt, or
 * without.
 */
async function checkPictures(sessions: Sessions, golden: Golden, report: (check: TensorCheck) => void): Promise<void> {
  for (const [name, trueCfgScale] of [
    ['cfg4', 4],
    ['plain', 1],
  ] as const) {
    const steps = need(golden.picture, `${name}.steps`);
    const image = need(golden.picture, `${name}.image`);
    const [, height, width] = image.shape as [number, number, number];
    const [numInferenceSteps] = steps.shape as [number];
    const expected = readFloat32(steps);
    const noise = readFloat32(need(golden.picture, `${name}.noise`));
    const prompt = golden.tokens[0]?.text as string;
    const size = {
      width,
      height,
      numInferenceSteps,
      trueCfgScale,
      seed: 0,
      initImage: null,
      strength: null,
      mask: null,
    };
    const request = { prompt, negativePrompt: ' ', ...size };
    const drawn = await draw(sessions, request, noise, expected.length);
    report(compareSteps(`picture.${name}.steps`, drawn.steps, expected, numInferenceSteps));
    report(compareImage(`picture.${name}.image`, drawn.image, readFloat32(image)));
  }
}

/** A picture over another: prompt 0, guidance 4, a blank negative prompt. */
async function checkImageToImage(
  sessions: Sessions,
  tokens: Golden['tokens'],
  golden: Map<string, TensorEntry>,
  report: (check: TensorCheck) => void,
): Promise<void> {
  const init = need(golden, 'init');
  const [, height, width] = init.shape as [number, number, number];
  const [numInferenceSteps, strength] = ['numInferenceSteps', 'strength'].map((name) => {
    const [value] = readFloat32(need(golden, name));
    // A float32 of 0.6 is not 0.6.
    return Number(value?.toPrecision(6));
  }) as [number, number];
  const prompt = tokens[0]?.text as string;
  const size = { width, height, numInferenceSteps, trueCfgScale: 4, seed: 0 };
  const request = { prompt, negativePrompt: ' ', ...size, initImage: 'golden', strength, mask: null };
  const noise = readFloat32(need(golden, 'noise'));
  const steps = need(golden, 'steps');
  const encoded = (await sessions.encode(readFloat32(init), height, width)) as Float32Array;
  const latents = firstLatents(request, scheduleOf(sessions, request), noise, packClean(sessions, request, encoded));
  const expected = readFloat32(steps);
  const drawn = await draw(sessions, request, latents, expected.length);
  report(compareSteps('image_to_image.steps', drawn.steps, expected, steps.shape[0] as number));
  report(compareImage('image_to_image.image', drawn.image, readFloat32(need(golden, 'image'))));
}

/** The latents after every step, in `floats` numbers, and the picture in [0, 1]. */
async function draw(
  sessions: Sessions,
  request: JobRequest,
  latents: Float32Array,
  floats: number,
): Promise<{ steps: Float32Array; image: Float32Array }> {
  const steps = new Float32Array(Math.max(floats, stepsOf(request) * latents.length));
  const observer: Observer = {
    onStep: (state) => steps.set(state.latents, (state.step - 1) * latents.length),
    onPart() {},
    onDecoding() {},
    isCancelled: () => false,
    isInterrupted: () => false,
  };
  const prompts = (await encodePrompts(sessions, request, observer.isCancelled)) as Prompts;
  const schedule = scheduleOf(sessions, request);
  const start = { step: 0, latents };
  const reached = (await denoise(sessions, request, prompts, schedule, start, observer)) as Reached;
  const { width, height } = request;
  const image = (await decodePacked(sessions, reached.latents, height / 16, width / 16)) as Float32Array;
  return { steps, image: image.map((value) => value / 2 + 0.5) };
}

function compare(tensor: string, actual: Float32Array, expected: Float32Array, limit: number): TensorCheck {
  const error = relativeError(actual, expected);
  return { tensor, relativeError: Number.isFinite(error) ? error : null, limit, ok: error <= limit };
}

/** The worst step decides. */
function compareSteps(tensor: string, actual: Float32Array, expected: Float32Array, steps: number): TensorCheck {
  const length = expected.length / steps;
  const checks = Array.from({ length: steps }, (_, i) =>
    compare(
      tensor,
      actual.subarray(i * length, (i + 1) * length),
      expected.subarray(i * length, (i + 1) * length),
      LIMIT.steps,
    ),
  );
  return checks.reduce((worst, check) =>
    !check.ok || (check.relativeError ?? 0) > (worst.relativeError ?? 0) ? check : worst,
  );
}

function compareImage(tensor: string, actual: Float32Array, expected: Float32Array): TensorCheck {
  const check = compare(tensor, actual, expected, LIMIT.image);
  const near = expected.reduce(
    (count, value, i) => count + Number(Math.abs(value - (actual[i] as number)) <= IMAGE_STEP),
    0,
  );
  return { ...check, ok: near >= IMAGE_SHARE * expected.length };
}

function relativeError(actual: Float32Array, expected: Float32Array): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += ((actual[i] as number) - (expected[i] as number)) ** 2;
    norm += (expected[i] as number) ** 2;
  }
  if (difference === 0) return 0;
  return Math.sqrt(difference / norm);
}

function need(tensors: Map<string, TensorEntry>, name: string): TensorEntry {
  const entry = tensors.get(name);
  if (!entry) throw new CodedError('GOLDEN_INVALID', `the golden tensor ${name} is missing`);
  return entry;
}

/** A broken golden file is the caller's, not the model's. */
function asGoldenError<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (cause instanceof CodedError && cause.code !== 'GOLDEN_INVALID') {
      throw new CodedError('GOLDEN_INVALID', cause.message, { cause });
    }
    throw cause;
  }
}
