/**
 * Entry of the API process, started by the supervisor, which owns the port: this process listens on the descriptor
 * that it inherited. It keeps no state and may die at any moment; the jobs do not notice.
 */
import { CodedError, toCodedError } from '@qwen-supervisor/protocol/errors';
import { type ApiSettings, CHILD_ENV } from '@qwen-supervisor/protocol/messages';
import { buildApp } from './app.js';
import { connectBackend } from './backend.js';

const settings = JSON.parse(process.env[CHILD_ENV.settings] ?? '{}') as ApiSettings;

const { [CHILD_ENV.socket]: socket = '', [CHILD_ENV.token]: token = '' } = process.env;
const backend = await connectBackend(socket, token, settings, {
  shutdown: ({ forGood }) => void shutdown(forGood),
  // Without the supervisor nothing can be answered, and the next one starts its own API.
  lost: () => process.exit(1),
});
const app = await buildApp(backend);
await app.ready();
app.server.on('error', (error) => void fail(error));
app.server.listen({ fd: settings.listenFd }, () => backend.link.notify('apiReady', {}));

async function shutdown(forGood: boolean): Promise<void> {
  backend.stop(forGood ? new CodedError('SUPERVISOR_STOPPING') : new CodedError('API_RESTARTING'));
  // Answers that are ready go out; event streams are cut.
  await app.close();
  process.exit(0);
}

async function fail(error: NodeJS.ErrnoException): Promise<void> {
  const coded =
    error.code === 'EADDRINUSE'
      ? new CodedError('PORT_IN_USE', `port ${settings.port} of ${settings.host} is taken by another process`)
      : toCodedError(error);
  await backend.link.request('fatal', { error: coded.toObject(), permanent: coded.code === 'PORT_IN_USE' });
  process.exit(1);
}
