/** What pages say to type in their console blocks, and what they say is printed. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { REPOSITORY } from '../fixture-files.js';

export interface Typed {
  command: string;
  printed: string;
}

/** Commands of a page in its order, each with what is below it. */
export function typedIn(page: string): Typed[] {
  const text = readFileSync(join(REPOSITORY, 'docs', page), 'utf8');
  return [...text.matchAll(/```console\n(.*?)```/gs)].flatMap(([, block = '']) =>
    block
      .split(/^\$ /m)
      .slice(1)
      .map((part) => {
        const [command = '', ...lines] = part.trimEnd().split('\n');
        return { command, printed: lines.join('\n') };
      }),
  );
}

/** Lines of `…` alone are any lines, none too. */
export function patternOf(printed: string): RegExp {
  const lines = printed.split('\n').map((line) => {
    if (line === '…') return '(?:.*\\n)*?';
    const escaped = line.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
    return `${escaped.replaceAll('…', '.*').replace(/ {2,}/g, ' +')}\\n`;
  });
  return new RegExp(`^${lines.join('')}`);
}
