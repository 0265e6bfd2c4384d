/** The end of IPC in every other process. */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Methods } from '@qwen-supervisor/protocol/messages';
import nodeIpc from 'node-ipc';
import { type Handlers, Link } from './link.js';
import { foreignness } from './own-socket.js';

/**
 * Connects to the supervisor's socket once: a connection that is lost is not made again, its owner decides.
 * @throws CodedError NOT_RUNNING where nobody listens, or somebody else
 */
export function connectIpc<Remote extends Methods, Local extends Methods>(
  path: string,
  handlers: (link: Link<Remote, Local>) => Handlers<Local>,
): Promise<Link<Remote, Local>> {
  const foreign = foreignness(path);
  if (foreign !== null) return Promise.reject(new CodedError('NOT_RUNNING', foreign));
  const ipc = new nodeIpc.IPC();
  ipc.config.rawBuffer = true;
  ipc.config.silent = true;
  ipc.config.stopRetrying = true;
  ipc.config.maxRetries = 0;
  return new Promise((resolve, reject) => {
    ipc.connectTo('supervisor', path);
    const client = ipc.of.supervisor;
    if (!client) throw new Error('node-ipc made no client');
    const link = new Link<Remote, Local>(client.socket, handlers);
    client.on('error', (cause) => reject(new CodedError('NOT_RUNNING', undefined, { cause })));
    client.on('connect', () => resolve(link));
    client.on('data', (chunk) => link.receive(chunk));
    client.on('disconnect', () => link.closed());
  });
}
