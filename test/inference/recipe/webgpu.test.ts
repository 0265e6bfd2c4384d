/**
 * The networks on a graphics card, by Vulkan in software: SwiftShader, which computes the fused attention wrong. In a
 * process of its own, because the loader reads its environment when it begins.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { execa, execaSync } from 'execa';
import { expect, test } from 'vitest';
import { OTHER, POCKET, REPOSITORY, temporaryFolder } from '../../fixture-files.js';

/** Where Debian's Chromium has it; else unpacked from its package. Null where it cannot be had. */
function swiftShader(): string | null {
  const installed = '/usr/lib/chromium';
  if (existsSync(join(installed, 'libvk_swiftshader.so'))) return installed;
  const folder = temporaryFolder();
  const get = ['-o', 'APT::Sandbox::User=root', 'download', 'chromium-common'];
  const fetch = () => execaSync('apt-get', get, { cwd: folder, reject: false, timeout: 120_000 });
  if (fetch().failed) {
    execaSync('apt-get', ['update'], { reject: false, timeout: 60_000 });
    if (fetch().failed) return null;
  }
  execaSync('sh', ['-c', 'dpkg-deb -x chromium-common_*.deb .'], { cwd: folder });
  return join(folder, 'usr/lib/chromium');
}

interface Answer {
  attention: string;
  /** Relative to the processor's, by graph. */
  errors: Record<string, number>;
}

async function compare(checkpoint: string): Promise<Answer | null> {
  const folder = swiftShader();
  if (folder === null) {
    expect(process.env.CI, 'SwiftShader cannot be had, and in CI it must be').not.toBe('true');
    return null;
  }
  const script = join(REPOSITORY, 'test/fixtures/children/webgpu.mjs');
  const env = { VK_ICD_FILENAMES: join(folder, 'vk_swiftshader_icd.json'), LD_LIBRARY_PATH: folder };
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
