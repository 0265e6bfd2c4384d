/** What the files that come with a checkpoint's weights say: its model card, its licence. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readRegular } from '@qwen-supervisor/files/read-regular';
import { CodedError } from '@qwen-supervisor/protocol/errors';

const CARD = 'README.md';
const BYTES_MAX = 1 << 20;

export interface License {
  /** As its model card or the first line of its text names it; null where nothing is said. */
  name: string | null;
  forbidsCommercialUse: boolean;
}

/** From the front matter of README.md, and the text of LICENSE. @throws CodedError MODEL_INVALID */
export function licenseOf(folder: string): License {
  const [, card = ''] = /^---\r?\n([\s\S]*?)\r?\n---/.exec(textOf(folder, CARD)) ?? [];
  const text =
    ['LICENSE', 'LICENSE.txt', 'LICENSE.md'].map((name) => textOf(folder, name)).find((content) => content !== '') ??
    '';
  const field = (key: string) => new RegExp(`^${key}:\\s*['"]?([\\w .+-]{1,80})`, 'm').exec(card)?.[1]?.trim();
  const declared = field('license');
  const name = (declared === 'other' ? field('license_name') : declared) ?? text.trim().split('\n')[0]?.slice(0, 80);
  const restricted = /non-?commercial|research licen[sc]e|research-license|\bnc\b|cc-by-nc/i;
  return { name: name || null, forbidsCommercialUse: restricted.test(`${name ?? ''} ${text.slice(0, 4000)}`) };
}

/**
 * Whether the model card is one of this model: by its first lines, where cards name what they describe. What cannot be
 * read is no card.
 */
export function isCardOf(folder: string, model: string): boolean {
  try {
    return textOf(folder, CARD).slice(0, 4000).toLowerCase().includes(model.toLowerCase());
  } catch (error) {
    if (error instanceof CodedError) return false;
    throw error;
  }
}

/** Empty where there is no such file. @throws CodedError MODEL_INVALID for what is no text of a usual size */
function textOf(folder: string, name: string): string {
  const file = join(folder, name);
  if (!existsSync(file)) return '';
  try {
    return readRegular(file, BYTES_MAX).bytes.toString('utf8');
  } catch (cause) {
    throw new CodedError('MODEL_INVALID', `${file}: ${(cause as Error).message}`, { cause });
  }
}
