/** API keys, as the operator writes them down: a key per line, after its role. */
import { CodedError } from './errors.js';

export const ROLES = ['use', 'admin'] as const;
export type Role = (typeof ROLES)[number];

export interface ApiKey {
  role: Role;
  key: string;
}

/** Characters; a shorter key can be guessed. */
const KEY_MIN = 16;
/** What HTTP headers carry unchanged. */
const LINE = /^(use|admin)\s+([\x21-\x7e]+)$/;

/**
 * Empty lines and those that begin with `#` are comments. @throws CodedError KEYS_FILE_INVALID, which never shows a
 * key
 */
export function parseApiKeys(text: string): ApiKey[] {
  const keys = text.split('\n').flatMap((line, index) => {
    const trimmed = line.trim();
    if (trimmed === '' || trimmed.startsWith('#')) return [];
    const [, role, key] = LINE.exec(trimmed) ?? [];
    if (role === undefined || key === undefined || key.length < KEY_MIN)
      throw new CodedError('KEYS_FILE_INVALID', `line ${index + 1} is not a role and a key of ${KEY_MIN} characters`);
    return [{ role: role as Role, key }];
  });
  if (keys.length === 0) throw new CodedError('KEYS_FILE_INVALID', 'there is no key in it');
  return keys;
}
