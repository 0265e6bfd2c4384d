/**
 * Entry of the inference worker's process. What it computes with are libraries for one kind of system and processor:
 * where they cannot be loaded, no new process will load them, and the supervisor is told so.
 */
import { connectIpc } from '@qwen-supervisor/ipc/connect';
import { VERSION } from '@qwen-supervisor/ipc/version';
import { CodedError, ERRORS } from '@qwen-supervisor/protocol/errors';
import { CHILD_ENV, type WorkerMethods, type WorkerReports } from '@qwen-supervisor/protocol/messages';

/** How Node and sharp say that a library is not there, or is for another system. */
const UNLOADABLE = /ERR_DLOPEN_FAILED|ERR_MODULE_NOT_FOUND|MODULE_NOT_FOUND|Could not load the "sharp" module/;

try {
  // By themselves: what fails within a graph of modules fails once for each that asks for it.
  await import('onnxruntime-node');
  await import('sharp');
} catch (error) {
  const { code = '', message } = error as Error & { code?: string };
  if (!UNLOADABLE.test(`${code} ${message}`)) throw error;
  console.error(message);
  const [first = ''] = message.split('\n');
  await reportFatal(new CodedError('RUNTIME_UNLOADABLE', `a library cannot be loaded: ${first.slice(0, 400)}`));
  process.exit(ERRORS.RUNTIME_UNLOADABLE.exit);
}
await import('./main-thread.js');

async function reportFatal(error: CodedError): Promise<void> {
  const { [CHILD_ENV.socket]: socket = '', [CHILD_ENV.token]: token = '' } = process.env;
  const handlers = { run() {}, cancel() {}, shutdown: () => process.exit(0) };
  const link = await connectIpc<WorkerReports, WorkerMethods>(socket, () => handlers);
  await link.request('hello', { role: 'inference', pid: process.pid, token, version: VERSION });
  await link.request('fatal', { error: error.toObject(), permanent: true });
}
