/** Debian's Chromium, once, before all tests that want it. */
import { existsSync } from 'node:fs';
import { execaSync } from 'execa';

export const CHROMIUM = '/usr/bin/chromium';

export default function install(): void {
  if (existsSync(CHROMIUM) || process.getuid?.() !== 0) return;
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  const get = (...args: string[]) => execaSync('apt-get', args, { env, reject: false, timeout: 300_000 });
  const wanted = ['install', '-y', '--no-install-recommends', 'chromium', 'fonts-liberation'];
  if (get(...wanted).failed) {
    get('update');
    get(...wanted);
  }
}
