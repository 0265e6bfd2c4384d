import { existsSync, readFileSync } from 'node:fs';

/** Of the program, from the package that this file is in: all of them carry the same. */
export const RELEASE: string = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version;

/**
 * The release, and of what sources it was built. The processes compare it when they meet: an update under a running
 * supervisor brings new children to an old one, also where the new one is of the same release.
 */
export const VERSION: string = [RELEASE, ...buildId()].join('+');

/** None where nothing was built: tests run the sources. */
function buildId(): string[] {
  const file = new URL('../dist/build-id', import.meta.url);
  return existsSync(file) ? [readFileSync(file, 'utf8')] : [];
}
