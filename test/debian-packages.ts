/**
 * What tests need of Debian, once, before all: a browser, systemd, PostgreSQL, pip, wrong clocks, and what the first
 * hour types.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { execaSync } from 'execa';

export const CHROMIUM = '/usr/bin/chromium';
/** Folder of the programs of a server. */
export const POSTGRES = '/usr/lib/postgresql/15/bin';
export const SYSTEMD = '/lib/systemd/systemd';

const PACKAGES: [file: string, packages: string[]][] = [
  [CHROMIUM, ['chromium', 'fonts-liberation']],
  [SYSTEMD, ['systemd']],
  ['/usr/bin/pkill', ['procps']],
  [join(POSTGRES, 'initdb'), ['postgresql-15']],
  ['/usr/bin/pip3', ['python3-pip']],
  ['/usr/bin/faketime', ['faketime']],
];

export default function install(): void {
  const packages = PACKAGES.filter(([file]) => !existsSync(file)).flatMap(([, packages]) => packages);
  if (packages.length === 0 || process.getuid?.() !== 0) return;
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  const get = (...args: string[]) => execaSync('apt-get', args, { env, reject: false, timeout: 300_000 });
  const wanted = ['install', '-y', '--no-install-recommends', ...packages];
  if (get(...wanted).failed) {
    get('update');
    get(...wanted);
  }
}
