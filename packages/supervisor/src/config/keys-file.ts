/** The file of API keys: read by the supervisor, which hands them to its API over IPC, and changed by the commands. */
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readRegular } from '@qwen-supervisor/files/read-regular';
import { replaceFile } from '@qwen-supervisor/files/replace-file';
import { type ApiKey, type KeyLine, parseApiKeys, parseKeyLine, type Role } from '@qwen-supervisor/protocol/api-keys';
import { CodedError } from '@qwen-supervisor/protocol/errors';

/** Thousands of keys. */
const BYTES_MAX = 1 << 20;
/** Bits of a file's mode that let others than its owner read or write it. */
const OPEN_TO_OTHERS = 0o066;

/** None for an empty path. @throws CodedError KEYS_FILE_INVALID */
export function readKeysFile(path: string): ApiKey[] {
  if (path === '') return [];
  return inFile(path, () => parseApiKeys(read(path)));
}

/** A line of it; `id` is short, and tells nothing of the key. */
export interface ListedKey extends KeyLine {
  id: string;
}

/** @throws CodedError KEYS_FILE_INVALID */
export function listKeys(path: string): ListedKey[] {
  return linesOf(path).flatMap(({ key }) => key ?? []);
}

/** Adds a new key, and gives it; makes the file if need be. @throws CodedError USAGE_INVALID, KEYS_FILE_INVALID */
export async function addKey(path: string, role: Role, name: string): Promise<string> {
  const lines = existsSync(path) ? linesOf(path) : [];
  if (lines.some(({ key }) => key?.name === name))
    throw new CodedError('USAGE_INVALID', `${path}: there is a key of '${name}' already`);
  const key = `qs-${randomBytes(KEY_BYTES).toString('base64url')}`;
  await write(path, [...lines.map(({ text }) => text), `${role} ${key} ${name}`]);
  return key;
}

/** By its name or id; all else stays as it is. @throws CodedError USAGE_INVALID, KEYS_FILE_INVALID */
export async function removeKey(path: string, nameOrId: string): Promise<void> {
  const lines = linesOf(path);
  const isMeant = ({ key }: Line) => key !== null && [key.name, key.id].includes(nameOrId);
  const found = lines.filter(isMeant);
  if (found.length !== 1)
    throw new CodedError('USAGE_INVALID', `${path}: ${found.length} keys are called '${nameOrId}'`);
  if (lines.filter(({ key }) => key !== null).length === 1)
    throw new CodedError('USAGE_INVALID', `${path}: it is the only key; without one the server cannot start`);
  await write(
    path,
    lines.filter((line) => !isMeant(line)).map(({ text }) => text),
  );
}

interface Line {
  text: string;
  key: ListedKey | null;
}

const KEY_BYTES = 24;
const ID_DIGITS = 8;

function linesOf(path: string): Line[] {
  return inFile(path, () =>
    read(path)
      .trimEnd()
      .split('\n')
      .map((text, i) => {
        const parsed = parseKeyLine(text, i + 1);
        return { text, key: parsed && { ...parsed, id: idOf(parsed) } };
      }),
  );
}

function idOf({ key }: ApiKey): string {
  return createHash('sha256').update(key).digest('hex').slice(0, ID_DIGITS);
}

async function write(path: string, lines: string[]): Promise<void> {
  process.umask(0o077);
  try {
    await replaceFile(path, Buffer.from(`${lines.join('\n')}\n`));
  } catch (cause) {
    throw new CodedError('KEYS_FILE_INVALID', `${path}: ${(cause as Error).message}`, { cause });
  }
}

function inFile<T>(path: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (error instanceof CodedError) throw new CodedError(error.code, `${path}: ${error.message}`, { cause: error });
    throw error;
  }
}

function read(path: string): string {
  let mode: number;
  let text: string;
  try {
    const { bytes, stats } = readRegular(path, BYTES_MAX);
    [mode, text] = [stats.mode, bytes.toString('utf8')];
  } catch (cause) {
    throw new CodedError('KEYS_FILE_INVALID', (cause as Error).message, { cause });
  }
  if (process.platform !== 'win32' && (mode & OPEN_TO_OTHERS) !== 0)
    throw new CodedError('KEYS_FILE_INVALID', 'can be read or written by other users');
  return text;
}
