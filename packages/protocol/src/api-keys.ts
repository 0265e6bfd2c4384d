/** API keys, as the operator writes them down: a key per line, after its role, and before whose it is. */
import { CodedError } from './errors.js';

export const ROLES = ['use', 'admin'] as const;
export type Role = (typeof ROLES)[number];

export interface ApiKey {
  role: Role;
  key: string;
}

/** One as it is in the file. */
export interface KeyLine extends ApiKey {
  /** Whose it is, for the operator alone; empty where nobody has said so. */
  name: string;
}

/** Characters; a shorter key can be guessed. */
const KEY_MIN = 16;
/** What HTTP headers carry unchanged. */
const LINE = /^(use|admin)\s+([\x21-\x7e]+)(?:\s+(.*))?$/;

/**
 * Empty lines and those that begin with `#` are comments. @throws CodedError KEYS_FILE_INVALID, which never shows a
 * key
 */
export function parseApiKeys(text: string): ApiKey[] {
  const keys = text
    .split('\n')
    .flatMap((line, index) => parseKeyLine(line, index + 1) ?? [])
    .map(({ role, key }) => ({ role, key }));
  if (keys.length === 0) throw new CodedError('KEYS_FILE_INVALID', 'there is no key in it');
  return keys;
}

/** Null for a comment. @throws CodedError KEYS_FILE_INVALID, which never shows a key */
export function parseKeyLine(line: string, number: number): KeyLine | null {
  const trimmed = line.trim();
  if (trimmed === '' || trimmed.startsWith('#')) return null;
  const [, role, key, name = ''] = LINE.exec(trimmed) ?? [];
  if (role === undefined || key === undefined || key.length < KEY_MIN)
    throw new CodedError('KEYS_FILE_INVALID', `line ${number} is not a role and a key of ${KEY_MIN} characters`);
  return { role: role as Role, key, name };
}
