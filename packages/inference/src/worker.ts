/** Entry of the inference worker's process. Where its libraries cannot be loaded the supervisor is told so. */
import { connectIpc } from '@qwen-supervisor/ipc/connect';
import { VERSION } from '@qwen-supervisor/ipc/version';
import { CodedError, ERRORS } from '@qwen-supervisor/protocol/errors';
import { CHILD_ENV, type WorkerMethods, type WorkerReports } from '@qwen-supervisor/protocol/messages';
import { requireRuntimeLibraries } from './runtime-libraries.js';

try {
  await requireRuntimeLibraries();
} catch (error) {
  if (!(error instanceof CodedError)) throw error;
  await reportFatal(error);
  process.exit(ERRORS[error.code].exit);
}
await import('./main-thread.js');

async function reportFatal(error: CodedError): Promise<void> {
  const { [CHILD_ENV.socket]: socket = '', [CHILD_ENV.token]: token = '' } = process.env;
  const handlers = { run() {}, cancel() {}, shutdown: () => process.exit(0) };
  const link = await connectIpc<WorkerReports, WorkerMethods>(socket, () => handlers);
  await link.request('hello', { role: 'inference', pid: process.pid, token, version: VERSION });
  await link.request('fatal', { error: error.toObject(), permanent: true });
}
