/** The file of API keys: read by the supervisor alone, which hands them to its API over IPC. */
import { readRegular } from '@qwen-supervisor/files/read-regular';
import { type ApiKey, parseApiKeys } from '@qwen-supervisor/protocol/api-keys';
import { CodedError } from '@qwen-supervisor/protocol/errors';

/** Thousands of keys. */
const BYTES_MAX = 1 << 20;
/** Bits of a file's mode that let others than its owner read or write it. */
const OPEN_TO_OTHERS = 0o066;

/** None for an empty path. @throws CodedError KEYS_FILE_INVALID */
export function readKeysFile(path: string): ApiKey[] {
  if (path === '') return [];
  const { mode, text } = read(path);
  if (process.platform !== 'win32' && (mode & OPEN_TO_OTHERS) !== 0)
    throw new CodedError('KEYS_FILE_INVALID', `${path} can be read or written by other users`);
  try {
    return parseApiKeys(text);
  } catch (error) {
    if (error instanceof CodedError) throw new CodedError(error.code, `${path}: ${error.message}`, { cause: error });
    throw error;
  }
}

function read(path: string): { mode: number; text: string } {
  try {
    const { bytes, stats } = readRegular(path, BYTES_MAX);
    return { mode: stats.mode, text: bytes.toString('utf8') };
  } catch (cause) {
    throw new CodedError('KEYS_FILE_INVALID', `${path}: ${(cause as Error).message}`, { cause });
  }
}
