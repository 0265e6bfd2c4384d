import { readFileSync } from 'node:fs';

/** Version of the program, from the package that this file is in: all of them carry the same. */
export const VERSION: string = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version;
