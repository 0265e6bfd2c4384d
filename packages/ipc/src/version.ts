import { readFileSync } from 'node:fs';

/**
 * Version of the program, from the package that this file is in: all of them carry the same. The processes compare it
 * when they meet: an update under a running supervisor brings new children to an old one.
 */
export const VERSION: string = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version;
