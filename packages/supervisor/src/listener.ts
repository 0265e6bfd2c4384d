/**
 * Binds the HTTP port without listening on it. The descriptor goes to the API process, which listens; while the API is
 * being restarted the kernel keeps the connections.
 *
 * Node has no public call for "bind only": a listening parent would take the connections itself. libuv reports a taken
 * port not at bind but at listen, and a descriptor that is not bound would then listen on a random port of all
 * interfaces; hence the check of the address that we really have.
 */
import { isIP } from 'node:net';
import { CodedError } from '@qwen-supervisor/protocol/errors';

export interface Listener {
  fd: number;
  host: string;
  port: number;
  url: string;
  close(): void;
}

/** The part of Node's internal TCP handle that is used here. */
interface TcpHandle {
  fd: number;
  bind(host: string, port: number): number;
  bind6(host: string, port: number, flags: number): number;
  getsockname(out: { address?: string; port?: number }): number;
  close(): void;
}
interface TcpWrap {
  TCP: new (type: number) => TcpHandle;
  constants: { SERVER: number };
}

const LOOPBACK = /^(127(\.\d{1,3}){3}|::1)$/;

/** @throws CodedError HOST_REFUSED, PORT_IN_USE, PORT_UNUSABLE */
export function bindListener(host: string, port: number): Listener {
  const address = host === 'localhost' ? '127.0.0.1' : host;
  const family = isIP(address);
  if (family === 0) throw new CodedError('PORT_UNUSABLE', `'${host}' is not an IP address`);
  if (!LOOPBACK.test(address)) throw new CodedError('HOST_REFUSED', `${host} is not a loopback address`);
  const { TCP, constants } = (process as unknown as { binding(name: 'tcp_wrap'): TcpWrap }).binding('tcp_wrap');
  const handle = new TCP(constants.SERVER);
  const failed = family === 6 ? handle.bind6(address, port, 0) : handle.bind(address, port);
  const name: { address?: string; port?: number } = {};
  handle.getsockname(name);
  if (failed !== 0) {
    handle.close();
    throw new CodedError('PORT_UNUSABLE', `${host}:${port} cannot be bound (error ${failed})`);
  }
  if (!name.port || (port !== 0 && name.port !== port)) {
    handle.close();
    throw new CodedError('PORT_IN_USE', `port ${port} of ${host} is taken by another process`);
  }
  const shown = family === 6 ? `[${address}]` : address;
  return {
    fd: handle.fd,
    host: address,
    port: name.port,
    url: `http://${shown}:${name.port}`,
    close: () => handle.close(),
  };
}
