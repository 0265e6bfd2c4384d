/**
 * Where the transformer and the VAE are computed. The text encoder stays on the processor: it takes seconds there, and
 * its memory is then not wanted on the card.
 */
import { type AttentionKind, attention } from '@qwen-supervisor/model/layers';
import { OnnxGraph } from '@qwen-supervisor/model/onnx';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Device } from '@qwen-supervisor/protocol/status';
import { InferenceSession, Tensor } from 'onnxruntime-node';

/** Tokens, heads and width of a head, as the transformer and the VAE have them. */
const SHAPES = [
  [72, 3, 128],
  [64, 1, 384],
] as const;
/** Relative; what is computed wrong is off by a tenth at least. */
const LIMIT = 1e-3;

/**
 * How attention is to be computed on `device`: fused where it agrees there with the processor. Drivers with few lanes
 * to a subgroup compute the operator wrong without a word.
 * @throws CodedError DEVICE_UNAVAILABLE
 */
export async function attentionFor(device: Device): Promise<AttentionKind> {
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

async function attend(
  device: Device,
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

async function openOn(device: Device, graph: OnnxGraph): Promise<InferenceSession> {
  try {
    return await InferenceSession.create(graph.encode(new Map()), { executionProviders: [device] });
  } catch (cause) {
    // Before it stand a file and a condition of the runtime's own source.
    const [reason = ''] = /[^.]*$/.exec((cause as Error).message.trim()) ?? [];
    throw new CodedError('DEVICE_UNAVAILABLE', `${device}: ${reason.trim()}`, { cause });
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
