/**
 * Where the transformer and the VAE are computed. The text encoder stays on the processor: it takes seconds there, and
 * its memory is then not wanted on the card.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type AttentionKind, attention, type Compute } from '@qwen-supervisor/model/layers';
import { OnnxGraph } from '@qwen-supervisor/model/onnx';
import { SMALL, syntheticBlock, WIDTHS } from '@qwen-supervisor/model/synthetic-block';
import { placeWeights } from '@qwen-supervisor/model/weights';
import { type CheckedAbility, type DeviceAbility, parseDevice } from '@qwen-supervisor/protocol/device';
import { deviceFault } from '@qwen-supervisor/protocol/device-fault';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { CHILD_ENV } from '@qwen-supervisor/protocol/messages';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { gaussianNoise } from './noise.js';
import { runBlock } from './run-block.js';

/** Tokens, heads and width of a head, as transformer and VAE have them. CUDA has other kernels for few tokens. */
const SHAPES = [
  [72, 3, 128],
  [64, 1, 384],
  [320, 3, 128],
  [320, 1, 384],
] as const;
/** Relative. SwiftShader's wrong attention is off by 0.06; what is rounded as tensor cores do (TF32) by 0.0006. */
const LIMIT = 1e-2;
/** Of a block in 16 bits: bfloat16 has eight bits of them for a number's digits. */
const SIXTEEN_BITS_LIMIT = 3e-2;
/** Of a picture that is convolved. */
const CHANNELS = 96;
/** Of what a driver says. */
const WORDS_MAX = 200;
/** How large the modulation makes values: with the second the block's streams grow beyond what float16 holds. */
const MODULATIONS = [1, 1000];
/**
 * The narrow one first, at which most fail that do; then of Qwen-Image's own width, where 16 bits hold the sum of
 * 12,288 products or do not, and as its weights may be kept.
 */
const BLOCKS = [
  [SMALL, 4],
  [WIDTHS, 4],
  [WIDTHS, 8],
] as const;
type Block = (typeof BLOCKS)[number];
/** Tokens of a side: enough for the kernels that draw. For few there are others. */
const SIDE = 8;

/** How ONNX Runtime is asked for a device. Which card Vulkan shows is decided by the environment of this process. */
export function providerOf(device: string): InferenceSession.ExecutionProviderConfig {
  const { kind, index } = parseDevice(device);
  return kind === 'cuda' ? { name: kind, deviceId: index } : kind;
}

/**
 * How attention is to be computed on `device`: fused where it agrees there with the processor. Drivers with few lanes
 * to a subgroup compute the operator wrong without a word.
 * @throws CodedError DEVICE_UNAVAILABLE, DEVICE_DRIVER_UNUSABLE, DEVICE_DRIVER_OLD,
 * CUDA_RUNTIME_INCOMPLETE
 */
export async function attentionFor(device: string): Promise<AttentionKind> {
  if (device === 'cpu') return 'fused';
  // First what else the VAE is made of: on CUDA of a library of its own, cuDNN, which is loaded when it is used.
  const convolved = difference(await convolve(device), await convolve('cpu'));
  if (convolved > LIMIT)
    throw new CodedError('DEVICE_UNAVAILABLE', `${device}: a convolution is off by ${convolved.toExponential(1)}`);
  for (const shape of SHAPES) {
    const expected = await attend('cpu', 'fused', shape);
    if (difference(await attend(device, 'fused', shape), expected) <= LIMIT) continue;
    const decomposed = difference(await attend(device, 'decomposed', shape), expected);
    if (decomposed <= LIMIT) return 'decomposed';
    throw new CodedError('DEVICE_UNAVAILABLE', `${device}: attention is off by ${decomposed.toExponential(1)}`);
  }
  return 'fused';
}

/**
 * What `device` computes the transformer in: the first of the types that it may, in which a block agrees with the
 * processor's float32, or the one that is `known` to be so. @throws CodedError as `attentionFor`
 */
export async function abilityOf(device: string, known?: Compute): Promise<CheckedAbility> {
  const attention = await attentionFor(device);
  if (known) return { attention, compute: known, refused: [] };
  const may = (process.env[CHILD_ENV.compute] ?? '').split(' ').filter((one) => one !== '') as Compute[];
  const refused: string[] = [];
  if (device === 'cpu' || may.length === 0) return { attention, compute: 'float32', refused };
  const folder = mkdtempSync(join(tmpdir(), 'qwen-supervisor-device-'));
  try {
    const expected = new Map<Block, Float32Array[]>();
    for (const compute of may) {
      const problem = await problemIn(device, { attention, compute }, folder, expected);
      if (problem === null) return { attention, compute, refused };
      refused.push(`${compute}: ${problem}`);
    }
    return { attention, compute: 'float32', refused };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * What is wrong with the first block that `device` does not compute as the processor does; null where it does.
 * `expected`: what the processor has given so far, whatever the type that was tried.
 */
async function problemIn(
  device: string,
  ability: DeviceAbility,
  folder: string,
  expected: Map<Block, Float32Array[]>,
): Promise<string | null> {
  for (const block of BLOCKS) {
    const right =
      expected.get(block) ?? (await runBlocks('cpu', { attention: 'fused', compute: 'float32' }, folder, block));
    expected.set(block, right);
    const problem = await runBlocks(device, ability, folder, block).then(
      (actual) => problemOf(actual, right),
      // In the words of the driver. Where the device is lost float32 will not work either, and says so.
      ({ message }: Error) =>
        message
          .replace(/^.*Status Message: /s, '')
          .replace(/\s+/g, ' ')
          .slice(0, WORDS_MAX),
    );
    if (problem !== null) return problem;
  }
  return null;
}

/** What is wrong with what a device has computed; null where it is near enough to what is right. */
function problemOf(actual: Float32Array[], expected: Float32Array[]): string | null {
  const worst = Math.max(...actual.map((one, i) => difference(one, expected[i] as Float32Array)));
  if (worst <= SIXTEEN_BITS_LIMIT) return null;
  return worst < 10 ? `off by ${(100 * worst).toFixed(1)} %` : 'gives what is no number, or nowhere near';
}

/** What a block of the transformer gives, of usual values and of values as large as Qwen-Image's. */
async function runBlocks(
  device: string,
  ability: DeviceAbility,
  folder: string,
  [widths, bits]: Block,
): Promise<Float32Array[]> {
  const part = syntheticBlock(folder, 0, ability, widths, bits);
  const placed = placeWeights(part.graph, folder, () => {});
  const session = await openOn(device, placed.model, placed.folder);
  try {
    const outputs: Float32Array[] = [];
    for (const height of MODULATIONS) outputs.push(await runBlock(session, part, widths, SIDE, height));
    return outputs;
  } finally {
    await session.release();
  }
}

/** A picture made twice as large, and a convolution of it. */
function convolve(device: string): Promise<Float32Array> {
  const g = new OnnxGraph('convolution');
  const [x, weight] = [g.input('x', [1, CHANNELS, 'h', 'w']), g.input('weight', [CHANNELS, CHANNELS, 3, 3])];
  const large = g.node('Resize', [x, '', g.floats(Float32Array.of(1, 1, 2, 2))], {
    mode: 'nearest',
    coordinate_transformation_mode: 'asymmetric',
    nearest_mode: 'floor',
  });
  const convolved = g.node('Conv', [large, weight], { kernel_shape: [3, 3], strides: [1, 1], pads: [1, 1, 1, 1] });
  g.output('out', convolved, [1, CHANNELS, 'h2', 'w2']);
  return runOn(device, g, {
    x: noise(0, [1, CHANNELS, SIDE, SIDE]),
    weight: noise(1, [CHANNELS, CHANNELS, 3, 3]),
  });
}

/** No waves: what is alike from token to token averages to the same, whichever tokens a wrong kernel leaves out. */
function noise(seed: number, dims: number[]): Tensor {
  const count = dims.reduce((product, side) => product * side, 1);
  return new Tensor('float32', gaussianNoise(seed, count), dims);
}

function attend(
  device: string,
  kind: AttentionKind,
  [tokens, heads, headDim]: (typeof SHAPES)[number],
): Promise<Float32Array> {
  const width = heads * headDim;
  const g = new OnnxGraph('attention');
  const [q, k, v] = ['q', 'k', 'v'].map((name) => g.input(name, [1, 'n', width])) as [string, string, string];
  g.output('out', attention(g, [q, k, v], { heads, headDim, kind }), [1, 'n', width]);
  return runOn(device, g, Object.fromEntries(['q', 'k', 'v'].map((name, i) => [name, noise(i, [1, tokens, width])])));
}

async function runOn(device: string, g: OnnxGraph, feeds: Record<string, Tensor>): Promise<Float32Array> {
  const session = await openOn(device, g.encode(new Map()));
  try {
    const { out } = await session.run(feeds);
    return (out as Tensor).data as Float32Array;
  } catch (cause) {
    // Compilers of shaders fail here, and cards for which there are no kernels.
    throw Object.assign(deviceFault(device, (cause as Error).message), { cause });
  } finally {
    await session.release();
  }
}

async function openOn(device: string, model: Uint8Array, folder?: string): Promise<InferenceSession> {
  const session = folder === undefined ? {} : { model_external_initializers_file_folder_path: folder };
  try {
    return await InferenceSession.create(model, { executionProviders: [providerOf(device)], extra: { session } });
  } catch (cause) {
    throw Object.assign(deviceFault(device, (cause as Error).message), { cause });
  }
}

/** Relative. */
export function difference(actual: Float32Array, expected: Float32Array): number {
  let [error, norm] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    error += ((actual[i] as number) - (expected[i] as number)) ** 2;
    norm += (expected[i] as number) ** 2;
  }
  // Not a number is no agreement.
  return Number.isFinite(error) ? Math.sqrt(error / norm) : Number.POSITIVE_INFINITY;
}
