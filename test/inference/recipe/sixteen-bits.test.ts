/**
 * The transformer in 16 bits, as graphics cards compute it. The processor has float16 as well, by way of float32: every
 * value between two nodes is rounded to it. Of bfloat16 it has no kernels; the graph is the same but for the type.
 */

import { readFileSync } from 'node:fs';
import type { TransformerConfig } from '@qwen-supervisor/model/architecture';
import { openCheckpoint } from '@qwen-supervisor/model/checkpoint';
import { buildGraphs } from '@qwen-supervisor/model/graphs';
import type { AttentionKind, Compute } from '@qwen-supervisor/model/layers';
import { SMALL, syntheticBlock } from '@qwen-supervisor/model/synthetic-block';
import { jointRotary, type TransformerPart } from '@qwen-supervisor/model/transformer';
import { placeWeights } from '@qwen-supervisor/model/weights';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { describe, expect, test } from 'vitest';
import { OTHER, POCKET, temporaryFolder } from '../../fixture-files.js';
import { nodesOf } from '../../onnx-nodes.js';

const [SIDE, WORDS] = [6, 10];
/** Where float16 ends. */
const LARGEST = 65_504;

async function run(
  { graph, rows }: TransformerPart,
  config: TransformerConfig,
  modulation = waves(rows * config.dim),
): Promise<Record<string, Float32Array>> {
  const { model, folder } = placeWeights(graph, temporaryFolder(), () => {});
  const extra = { session: { model_external_initializers_file_folder_path: folder } };
  const session = await InferenceSession.create(model, { extra, intraOpNumThreads: 2, logSeverityLevel: 3 });
  const tokens = SIDE * SIDE;
  const tensor = (values: Float32Array, ...dims: number[]) => new Tensor('float32', values, dims);
  const { cos, sin } = jointRotary(config, WORDS, SIDE, SIDE);
  const rotary = [1, WORDS + tokens, config.headDim / 2];
  const results = await session.run({
    latents: tensor(waves(tokens * config.inChannels), tokens, config.inChannels),
    text: tensor(waves(WORDS * config.jointAttentionDim), WORDS, config.jointAttentionDim),
    cos: tensor(cos, ...rotary),
    sin: tensor(sin, ...rotary),
    modulation: tensor(modulation, rows * config.dim),
  });
  await session.release();
  return Object.fromEntries(Object.entries(results).map(([name, { data }]) => [name, data as Float32Array]));
}

function waves(length: number): Float32Array {
  return Float32Array.from({ length }, (_, i) => Math.sin(1.3 * i));
}

/** Relative; infinite where a number is none. */
function difference(actual: Float32Array | undefined, expected: Float32Array | undefined): number {
  let [error, norm] = [0, 0];
  expected?.forEach((value, i) => {
    error += (value - (actual?.[i] as number)) ** 2;
    norm += value ** 2;
  });
  return Number.isFinite(error) && norm > 0 ? Math.sqrt(error / norm) : Number.POSITIVE_INFINITY;
}

const largest = (values: Float32Array = new Float32Array()) =>
  values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

describe.each([
  ['the pocket model', POCKET],
  ['a checkpoint of other sizes', OTHER],
])('%s', (_, folder) => {
  test.each(['fused', 'decomposed'] as const)('agrees with itself in float32, with %s attention', async (attention) => {
    const checkpoint = openCheckpoint(folder);
    const velocity = async (compute: Compute) => {
      const [part] = buildGraphs(checkpoint, { attention, compute }).transformer;
      return (await run(part as TransformerPart, checkpoint.architecture.transformer)).velocity;
    };
    const off = difference(await velocity('float16'), await velocity('float32'));
    expect(off).toBeLessThan(2e-3);
    expect(off, 'it is computed otherwise').toBeGreaterThan(1e-6);
  });
});

describe('a block of quantised weights', () => {
  const block = (compute: Compute, attention: AttentionKind = 'fused') =>
    syntheticBlock(temporaryFolder(), 0, { attention, compute }, SMALL);
  /** Rows of `dim` values: those of the image and of the text, each shift1, scale1, gate1, shift2, scale2, gate2. */
  const modulationOf = (part: TransformerPart, factors: Partial<Record<number, number>>) => {
    const values = waves(part.rows * SMALL.dim);
    return values.map((value, i) => value * (factors[Math.floor(i / SMALL.dim) % 6] ?? 1));
  };
  async function both(factors: Partial<Record<number, number>>) {
    const [narrow, wide] = [block('float16'), block('float32')];
    return Promise.all([narrow, wide].map((part) => run(part, SMALL, modulationOf(part, factors))));
  }

  test('what goes into attention may be larger than float16 holds, and the epsilon of its norms counts for as much', async () => {
    for (const factor of [1e5, 1, 1e-4]) {
      const [actual, expected] = await both({ 0: factor, 1: factor });
      expect(difference(actual?.nextImage, expected?.nextImage), String(factor)).toBeLessThan(5e-3);
      expect(difference(actual?.nextWords, expected?.nextWords), String(factor)).toBeLessThan(5e-3);
    }
  });

  test('streams are float32: they grow beyond what float16 holds', async () => {
    const [actual, expected] = await both({ 2: 1e6, 5: 1e6 });
    expect(largest(expected?.nextImage)).toBeGreaterThan(LARGEST);
    expect(difference(actual?.nextImage, expected?.nextImage)).toBeLessThan(5e-3);
  });

  test.each(['fused', 'decomposed'] as const)(
    'in bfloat16, with %s attention, lacks nothing but kernels',
    async (attention) => {
      const { graph } = block('bfloat16', attention);
      const { model, folder } = placeWeights(graph, temporaryFolder(), () => {});
      const extra = { session: { model_external_initializers_file_folder_path: folder } };
      // Types that do not fit together are found before kernels are looked for.
      await expect(InferenceSession.create(model, { extra })).rejects.toThrow(/Could not find an implementation/);
    },
  );

  test('has casts within it alone, and none of weights is left when it is loaded', async () => {
    const { graph } = block('float16');
    const places = new Map(graph.weights.map(({ name }) => [name, { location: 'x', offset: 0, length: 0 }]));
    const isOfWeights = (name: string) => /^constant_|\.(weight|bias|codes|scales)$/.test(name);
    const constants = new Set<string>();
    const isConstant = (name: string) => constants.has(name) || isOfWeights(name);
    const nodes = nodesOf(graph.encode(places));
    for (const { from, to } of nodes) if (from.every(isConstant)) for (const name of to) constants.add(name);
    const casts = nodes.filter(({ op, from }) => op === 'Cast' && !from.every(isConstant));
    // Two streams: into attention and out of it, into the MLP and out of it; cosines and sines.
    expect(casts).toHaveLength(2 * 4 + 2);
    const { model, folder } = placeWeights(graph, temporaryFolder(), () => {});
    const optimised = `${temporaryFolder()}/optimised.onnx`;
    const extra = { session: { model_external_initializers_file_folder_path: folder } };
    await InferenceSession.create(model, { extra, optimizedModelFilePath: optimised, logSeverityLevel: 3 });
    const left = nodesOf(readFileSync(optimised)).filter(({ op, from }) => op === 'Cast' && from.some(isOfWeights));
    expect(left).toEqual([]);
  });
});
