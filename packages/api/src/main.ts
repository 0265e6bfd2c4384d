/**
 * Entry of the API process, started by the supervisor, which owns the port: this process listens on the descriptor
 * that it inherited. It keeps no state and may die at any moment; the jobs do not notice.
 */
import { createServer, type Server } from 'node:net';
import { CodedError, toCodedError } from '@qwen-supervisor/protocol/errors';
import { type ApiSettings, CHILD_ENV } from '@qwen-supervisor/protocol/messages';
import { buildApp, KEEP_ALIVE } from './app.js';
import { connectBackend } from './backend.js';
import { endStreams } from './event-stream.js';

/** What came over the other loopback is answered by then: nothing is waited for any more. */
const LAST_ANSWERS_MS = 1000;

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
const [first, ...others] = settings.listenFds;
app.server.listen({ fd: first }, () => backend.link.notify('apiReady', {}));
const alongside = others.map(listenToo);

/** A server listens once; what comes in here is its own, too. Without it clients find the other address. */
function listenToo(fd: number): Server {
  const server = createServer({ allowHalfOpen: true, noDelay: true, ...KEEP_ALIVE }, (socket) => {
    app.server.emit('connection', socket);
  });
  server.on('error', (error) => console.error(`not listening on the other loopback: ${error.message}`));
  return server.listen({ fd });
}

async function shutdown(forGood: boolean): Promise<void> {
  backend.stop(forGood ? new CodedError('SUPERVISOR_STOPPING') : new CodedError('API_RESTARTING'));
  const closed = alongside.map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
  // Answers that are ready go out; event streams end, when those that wait for pictures have been told why.
  await new Promise((resolve) => setImmediate(resolve));
  endStreams();
  await app.close();
  const enough = new Promise((resolve) => setTimeout(resolve, LAST_ANSWERS_MS));
  await Promise.race([Promise.all(closed), enough]);
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
