/**
 * The networks on a graphics card, by Vulkan in software: SwiftShader, which computes the fused attention wrong. In a
 * process of its own, because the loader reads its environment when it begins.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CHILD_ENV } from '@qwen-supervisor/protocol/messages';
import { execa } from 'execa';
import { expect, test } from 'vitest';
import { OTHER, POCKET, REPOSITORY, temporaryFolder } from '../../fixture-files.js';
import { nodesOf } from '../../onnx-nodes.js';
import { ON_CARDS } from '../../operators-on-cards.js';
import { swiftShader } from '../../swiftshader.js';

interface Answer {
  attention: string;
  compute: string;
  refused: string[];
  /** Where the values lie that the first part of the transformer gives. */
  locations: string[];
  /** By graph: how many operators ran, and those that did not run on the card. */
  profiles: Record<string, { kernels: number; there: string[] }>;
  /** Relative to the processor's, by graph. */
  errors: Record<string, number>;
}

async function compare(checkpoint: string): Promise<Answer | null> {
  const env = swiftShader();
  if (env === null) return null;
  const script = join(REPOSITORY, 'test/fixtures/children/webgpu.mjs');
  const { stdout } = await execa(process.execPath, [script, checkpoint, temporaryFolder()], {
    env: { ...env, [CHILD_ENV.compute]: 'float16' },
  });
  return JSON.parse(stdout) as Answer;
}

test.each([
  ['the pocket model', POCKET],
  ['a checkpoint of other sizes', OTHER],
])(
  '%s: what is computed wrong, or not at all, is found, and without it all agree with the processor',
  async (_, folder) => {
    const answer = await compare(folder);
    if (!answer) return;
    expect(answer.attention).toBe('decomposed');
    expect(answer.compute, 'it has no float16').toBe('float32');
    expect(answer.refused).toEqual([expect.stringMatching(/^float16: .*(f16|float16)/i)]);
    expect(answer.locations).toEqual(['gpu-buffer', 'gpu-buffer']);
    // Of the VAE one number of a shape is taken on the processor, which is where ONNX Runtime keeps shapes.
    const [all, ofShape] = [{ there: [] }, { there: ['Gather'] }];
    expect(answer.profiles).toMatchObject({ transformer: all, vae_decoder: ofShape, vae_encoder: ofShape });
    for (const { kernels } of Object.values(answer.profiles)) expect(kernels).toBeGreaterThan(40);
    expect(Object.keys(answer.errors)).toEqual(['transformer', 'vae_decoder', 'vae_encoder', 'parts']);
    for (const [graph, error] of Object.entries(answer.errors)) expect(error, graph).toBeLessThan(1e-4);
  },
);

test('products with quantised weights of full width agree with the processor', async () => {
  const env = swiftShader();
  if (env === null) return;
  const script = join(REPOSITORY, 'test/fixtures/children/webgpu-products.mjs');
  const errors = JSON.parse((await execa(process.execPath, [script], { env })).stdout) as Record<string, number>;
  for (const bits of [4, 8]) {
    expect(errors[`int${bits}, accuracy 0`]).toBeLessThan(1e-4);
    // Here the card rounds what is multiplied to eight bits, as the processor does.
    expect(errors[`int${bits}, accuracy 4`]).toBeLessThan(1e-2);
  }
});

test('blocks of full width are made ready for the card alone, of operators that cards have: the first of 60, a usual one and the last', async () => {
  const env = swiftShader();
  if (env === null) return;
  const folder = temporaryFolder();
  await execa(process.execPath, [join(REPOSITORY, 'test/fixtures/children/webgpu-optimised.mjs'), folder], { env });
  const graphs = readdirSync(folder).filter((name) => name.endsWith('.onnx'));
  expect(graphs).toHaveLength(6);
  for (const name of graphs) {
    const nodes = nodesOf(readFileSync(join(folder, name)));
    expect(nodes.length).toBeGreaterThan(40);
    expect(
      [...new Set(nodes.map(({ op }) => op))].filter((op) => !ON_CARDS.includes(op)),
      name,
    ).toEqual([]);
    // A card binds about a dozen buffers at once.
    expect(Math.max(...nodes.map(({ inputs, outputs }) => Math.max(inputs, outputs)))).toBeLessThanOrEqual(10);
  }
});
