/**
 * The networks on a graphics card, by Vulkan in software: SwiftShader, which computes the fused attention wrong. In a
 * process of its own, because the loader reads its environment when it begins.
 */
import { join } from 'node:path';
import { execa } from 'execa';
import { expect, test } from 'vitest';
import { OTHER, POCKET, REPOSITORY, temporaryFolder } from '../../fixture-files.js';
import { swiftShader } from '../../swiftshader.js';

interface Answer {
  attention: string;
  /** Relative to the processor's, by graph. */
  errors: Record<string, number>;
}

async function compare(checkpoint: string): Promise<Answer | null> {
  const env = swiftShader();
  if (env === null) return null;
  const script = join(REPOSITORY, 'test/fixtures/children/webgpu.mjs');
  const { stdout } = await execa(process.execPath, [script, checkpoint, temporaryFolder()], { env });
  return JSON.parse(stdout) as Answer;
}

test.each([
  ['the pocket model', POCKET],
  ['a checkpoint of other sizes', OTHER],
])('%s: attention that is computed wrong is found, and without it all agree with the processor', async (_, folder) => {
  const answer = await compare(folder);
  if (!answer) return;
  expect(answer.attention).toBe('decomposed');
  expect(Object.keys(answer.errors)).toEqual(['transformer', 'vae_decoder', 'vae_encoder']);
  for (const [graph, error] of Object.entries(answer.errors)) expect(error, graph).toBeLessThan(1e-4);
});

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
