/**
 * A graphics card in software: SwiftShader, a Vulkan driver of Debian's Chromium. It computes fused attention wrong,
 * and knows no half precision.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { execaSync } from 'execa';
import { expect } from 'vitest';
import { temporaryFolder } from './fixture-files.js';

let folder: string | null | undefined;

/**
 * What a process has in its environment that computes on it. Null on a developer's machine where it cannot be had; in
 * CI it must be.
 */
export function swiftShader(): Record<string, string> | null {
  folder ??= locate();
  if (folder === null) {
    expect(process.env.CI, 'SwiftShader cannot be had, and in CI it must be').not.toBe('true');
    return null;
  }
  return { VK_ICD_FILENAMES: join(folder, 'vk_swiftshader_icd.json'), LD_LIBRARY_PATH: folder };
}

/** Where Debian's Chromium has it; else unpacked from its package. */
function locate(): string | null {
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
