/**
 * Where the transformer and the VAE are computed. The text encoder stays on the processor: it takes seconds there, and
 * its memory is then not wanted on the card.
 */
import { type AttentionKind, attention } from '@qwen-supervisor/model/layers';
import { OnnxGraph } from '@qwen-supervisor/model/onnx';
import { parseDevice } from '@qwen-supervisor/protocol/device';
import { deviceFault } from '@qwen-supervisor/protocol/device-fault';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { InferenceSession, Tensor } from 'onnxruntime-node';

/** Tokens, heads and width of a head, as the transformer and the VAE have them. */
const SHAPES = [
  [72, 3, 128],
  [64, 1, 384],
] as const;
/** Types of ONNX tensors. Reference: onnx.proto, TensorProto.DataType. */
const [FLOAT32, FLOAT16] = [1, 10];
/** Relative; what is computed wrong is off by a tenth at least. */
const LIMIT = 1e-3;

/** How ONNX Runtime is asked for a device. Which card Vulkan shows is decided by the environment of this process. */
export function providerOf(device: string): InferenceSession.ExecutionProviderConfig {
  const { kind, index } = parseDevice(device);
  return kind === 'cuda' ? { name: kind, deviceId: index } : kind;
}

/**
 * How attention is to be computed on `device`: fused where it agrees there with the processor. Drivers with few lanes
 * to a subgroup compute the operator wrong without a word.
 * @throws CodedError DEVICE_UNAVAILABLE, DEVICE_DRIVER_UNUSABLE, CUDA_RUNTIME_INCOMPLETE
 */
export async function attentionFor(device: string): Promise<AttentionKind> {
  if (device === 'cpu') return 'fused';
  for (const shape of SHAPES) {
    const expected = await attend('cpu', 'fused', shape);
    if (difference(await attend(device, 'fused', shape), expected) <= LIMIT) continue;
    const decomposed = difference(await attend(device, 'decomposed', shape), expected);
    if (decomposed <= LIMIT) return 'decomposed';
    throw new CodedError('DEVICE_UNAVAILABLE', `${device}: attention is off by ${decomposed.toExponential(1)}`);
  }
  return 'fused';
}

/** Whether `device` computes in half precision: a processor does so only by way of float32. */
export async function computesFloat16(device: string): Promise<boolean> {
  if (device === 'cpu') return false;
  const g = new OnnxGraph('float16');
  const half = g.node('Cast', [g.input('x', ['n'])], { to: FLOAT16 });
  g.output('y', g.node('Cast', [g.node('Mul', [half, half])], { to: FLOAT32 }), ['n']);
  try {
    const session = await openOn(device, g);
    const { y } = await session.run({ x: new Tensor('float32', Float32Array.of(1.5, 3), [2]) });
    await session.release();
    return ((y as Tensor).data as Float32Array).every((value, i) => value === [2.25, 9][i]);
  } catch {
    // Whatever it says: it does not.
    return false;
  }
}

async function attend(
  device: string,
  kind: AttentionKind,
  [tokens, heads, headDim]: (typeof SHAPES)[number],
): Promise<Float32Array> {
  const width = heads * headDim;
  const g = new OnnxGraph('attention');
  const [q, k, v] = ['q', 'k', 'v'].map((name) => g.input(name, [1, 'n', width])) as [string, string, string];
  g.output('out', attention(g, [q, k, v], { heads, headDim, kind }), [1, 'n', width]);
  const session = await openOn(device, g);
  const values = (phase: number) => Float32Array.from({ length: tokens * width }, (_, i) => Math.sin(phase + i * 1.7));
  const feeds = Object.fromEntries(
    ['q', 'k', 'v'].map((name, i) => [name, new Tensor('float32', values(i), [1, tokens, width])]),
  );
  try {
    const { out } = await session.run(feeds);
    return (out as Tensor).data as Float32Array;
  } finally {
    await session.release();
  }
}

async function openOn(device: string, graph: OnnxGraph): Promise<InferenceSession> {
  try {
    return await InferenceSession.create(graph.encode(new Map()), { executionProviders: [providerOf(device)] });
  } catch (cause) {
    throw Object.assign(deviceFault(device, (cause as Error).message), { cause });
  }
}

function difference(actual: Float32Array, expected: Float32Array): number {
  let [error, norm] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    error += ((actual[i] as number) - (expected[i] as number)) ** 2;
    norm += (expected[i] as number) ** 2;
  }
  // Not a number is no agreement.
  return Number.isFinite(error) ? Math.sqrt(error / norm) : Number.POSITIVE_INFINITY;
}
