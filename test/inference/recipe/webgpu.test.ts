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
