/**
 * Entry of `generate --image`: stores a picture for a worker to draw over, in a process of its own. Takes a question as
 * JSON; prints the answer, or `{"error"}`, as JSON.
 */
import { readRegular } from '@qwen-supervisor/files/read-regular';
import { CodedError, toCodedError } from '@qwen-supervisor/protocol/errors';
import type { InputQuestion, StoredInput } from '@qwen-supervisor/protocol/stored-input';
import { inspect, sizeFor, storeInput } from './uploads.js';

/** Of a file, bytes: larger than any picture that is decoded. */
const BYTES_MAX = 256e6;

async function store({ file, dataDir, given, defaults, limits }: InputQuestion): Promise<StoredInput> {
  const upload = await inspect(read(file));
  const size = sizeFor(upload, given, { model: { defaults }, limits });
  return { sha256: await storeInput(dataDir, upload, size, false), ...size };
}

function read(file: string): Buffer {
  try {
    return readRegular(file, BYTES_MAX).bytes;
  } catch (cause) {
    throw new CodedError('UPLOAD_INVALID', (cause as Error).message, { cause });
  }
}

process.umask(0o077);
const question = JSON.parse(process.argv[2] as string) as InputQuestion;
try {
  console.log(JSON.stringify(await store(question)));
} catch (error) {
  const { code, message, cause } = toCodedError(error);
  console.log(JSON.stringify({ error: new CodedError(code, `${question.file}: ${message}`, { cause }).toObject() }));
}
