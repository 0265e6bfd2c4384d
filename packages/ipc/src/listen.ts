/** The supervisor's end of IPC: a Unix socket through node-ipc in raw mode, one link per connection. */

import type { Socket } from 'node:net';
import { dirname } from 'node:path';
import type { Methods } from '@qwen-supervisor/protocol/messages';
import nodeIpc from 'node-ipc';
import { type Handlers, Link } from './link.js';

export interface IpcServer {
  close(): void;
}

/**
 * Listens on `path`, whose folder is made private to the user (0700, ownership checked by node-ipc).
 * `accept` makes the handlers of a new connection.
 */
export function listenIpc<Remote extends Methods, Local extends Methods>(
  path: string,
  accept: (link: Link<Remote, Local>) => Handlers<Local>,
): Promise<IpcServer> {
  const ipc = new nodeIpc.IPC();
  ipc.config.rawBuffer = true;
  ipc.config.silent = true;
  // Its default of 100 would keep our own children out when as many clients wait.
  ipc.config.maxConnections = Number.MAX_SAFE_INTEGER;
  ipc.config.socketRoot = `${dirname(path)}/`;
  const links = new Map<Socket, Link<Remote, Local>>();
  return new Promise((resolve, reject) => {
    ipc.serve(path, () => {
      ipc.server.off('error', '*');
      // Later errors are of single connections: their link hears 'close'.
      ipc.server.on('error', () => {});
      resolve({ close: () => ipc.server.stop() });
    });
    ipc.server.on('error', reject);
    ipc.server.on('connect', (socket) => links.set(socket, new Link(socket, accept)));
    ipc.server.on('data', (chunk, socket) => links.get(socket)?.receive(chunk));
    ipc.server.on('close', (socket) => {
      const link = links.get(socket);
      links.delete(socket);
      link?.closed();
    });
    ipc.server.start();
  });
}
