/** The file of API keys: read by the supervisor, which hands them to its API over IPC, and changed by the commands. */
import { createHash, randomBytes } from 'node:crypto';
import { chownSync, closeSync, existsSync, openSync, realpathSync, rmSync, statSync } from 'node:fs';
import { readRegular } from '@qwen-supervisor/files/read-regular';
import { replaceFile } from '@qwen-supervisor/files/replace-file';
import { type ApiKey, type KeyLine, parseApiKeys, parseKeyLine, type Role } from '@qwen-supervisor/protocol/api-keys';
import { CodedError } from '@qwen-supervisor/protocol/errors';

/** Thousands of keys. */
const BYTES_MAX = 1 << 20;
/** Bits of a file's mode that let others than its owner read or write it. */
const OPEN_TO_OTHERS = 0o066;
/** Of a credential: systemd lets the user of the service read it by a list, which counts as the group's. */
const OPEN_CREDENTIAL = 0o026;

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
  const key = `qs-${randomBytes(KEY_BYTES).toString('base64url')}`;
  await change(path, (lines) => {
    if (lines.some((line) => line.key?.name === name))
      throw new CodedError('USAGE_INVALID', `${path}: there is a key of '${name}' already`);
    return [...lines.map(({ text }) => text), `${role} ${key} ${name}`];
  });
  return key;
}

/** By its name or id; all else stays as it is. @throws CodedError USAGE_INVALID, KEYS_FILE_INVALID */
export async function removeKey(path: string, nameOrId: string): Promise<void> {
  const isMeant = ({ key }: Line) => key !== null && [key.name, key.id].includes(nameOrId);
  await change(path, (lines) => {
    const found = lines.filter(isMeant);
    if (found.length !== 1)
      throw new CodedError('USAGE_INVALID', `${path}: ${found.length} keys are called '${nameOrId}'`);
    if (lines.filter(({ key }) => key !== null).length === 1)
      throw new CodedError('USAGE_INVALID', `${path}: it is the only key; without one the server cannot start`);
    return lines.filter((line) => !isMeant(line)).map(({ text }) => text);
  });
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

/**
 * Reads, changes and writes the file, one process after the other. It stays its owner's, whoever writes, and where a
 * link leads.
 */
async function change(path: string, act: (lines: Line[]) => string[]): Promise<void> {
  process.umask(0o077);
  const target = existsSync(path) ? realpathSync(path) : path;
  const lock = `${target}.lock`;
  try {
    closeSync(openSync(lock, 'wx'));
  } catch (cause) {
    const isTaken = (cause as NodeJS.ErrnoException).code === 'EEXIST';
    const why = isTaken ? `another command changes it; if none does, remove ${lock}` : (cause as Error).message;
    throw new CodedError('KEYS_FILE_INVALID', `${path}: ${why}`, { cause });
  }
  try {
    const before = existsSync(target) ? statSync(target) : null;
    const lines = act(before === null ? [] : linesOf(path));
    await replaceFile(target, Buffer.from(`${lines.join('\n')}\n`));
    if (before !== null && process.getuid?.() === 0) chownSync(target, before.uid, before.gid);
  } catch (cause) {
    if (cause instanceof CodedError) throw cause;
    throw new CodedError('KEYS_FILE_INVALID', `${path}: ${(cause as Error).message}`, { cause });
  } finally {
    rmSync(lock);
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
  const credentials = process.env.CREDENTIALS_DIRECTORY;
  const isCredential = credentials !== undefined && path.startsWith(`${credentials}/`);
  if (process.platform !== 'win32' && (mode & (isCredential ? OPEN_CREDENTIAL : OPEN_TO_OTHERS)) !== 0)
    throw new CodedError('KEYS_FILE_INVALID', 'can be read or written by other users');
  return text;
}
