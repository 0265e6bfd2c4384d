/** What a checkpoint's folder says of its licence. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readRegular } from '@qwen-supervisor/files/read-regular';

const BYTES_MAX = 1 << 20;

export interface License {
  /** As its model card or the first line of its text names it; null where nothing is said. */
  name: string | null;
  forbidsCommercialUse: boolean;
}

/** From the front matter of README.md, and the text of LICENSE. */
export function licenseOf(folder: string): License {
  const read = (name: string) => {
    const file = join(folder, name);
    return existsSync(file) ? readRegular(file, BYTES_MAX).bytes.toString('utf8') : '';
  };
  const [, card = ''] = /^---\r?\n([\s\S]*?)\r?\n---/.exec(read('README.md')) ?? [];
  const text = ['LICENSE', 'LICENSE.txt', 'LICENSE.md'].map(read).find((content) => content !== '') ?? '';
  const field = (key: string) => new RegExp(`^${key}:\\s*['"]?([\\w .+-]{1,80})`, 'm').exec(card)?.[1]?.trim();
  const declared = field('license');
  const name = (declared === 'other' ? field('license_name') : declared) ?? text.trim().split('\n')[0]?.slice(0, 80);
  const restricted = /non-?commercial|research licen[sc]e|research-license|\bnc\b|cc-by-nc/i;
  return { name: name || null, forbidsCommercialUse: restricted.test(`${name ?? ''} ${text.slice(0, 4000)}`) };
}
