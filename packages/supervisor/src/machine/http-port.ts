/**
 * Binds the HTTP port without listening on it. The descriptor goes to the API process, which listens; while the API is
 * being restarted the kernel keeps the connections.
 *
 * Node has no public call for "bind only": a listening parent would take the connections itself. libuv reports a taken
 * port not at bind but at listen, and a descriptor that is not bound would then listen on a random port of all
 * interfaces; hence the check of the address that we really have.
 */
import { isIP } from 'node:net';
import { getSystemErrorName } from 'node:util';
import { CodedError } from '@qwen-supervisor/protocol/errors';

export interface HttpPort {
  /** One, or one for each loopback. */
  fds: number[];
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
  open(fd: number): number;
  getsockname(out: SocketName): number;
  close(): void;
}
interface SocketName {
  address?: string;
  port?: number;
}
interface TcpWrap {
  TCP: new (type: number) => TcpHandle;
  constants: { SERVER: number };
}

const LOOPBACK = /^(127(\.\d{1,3}){3}|::1)$/;

/** `open`: addresses beyond loopback may be served, too. @throws CodedError HOST_REFUSED, PORT_IN_USE, PORT_UNUSABLE */
export function bindHttpPort(host: string, port: number, open: boolean): HttpPort {
  // Clients take `localhost` for either, and do not always try the other.
  if (host === 'localhost') return withOtherLoopback(bindHttpPort('127.0.0.1', port, open));
  const address = host;
  requireServable(address, open);
  const family = isIP(address);
  const handle = newHandle();
  const failed = family === 6 ? handle.bind6(address, port, 0) : handle.bind(address, port);
  const name: SocketName = {};
  handle.getsockname(name);
  if (failed !== 0) {
    handle.close();
    throw new CodedError('PORT_UNUSABLE', `${host}:${port} cannot be bound (${getSystemErrorName(failed)})`);
  }
  if (!name.port || (port !== 0 && name.port !== port)) {
    handle.close();
    throw new CodedError('PORT_IN_USE', `port ${port} of ${host} is taken by another process`);
  }
  return httpPortOf(handle, address, name.port);
}

/**
 * Takes over the sockets that systemd has bound; their addresses come from the socket unit. @throws CodedError
 * HOST_REFUSED, PORT_UNUSABLE
 */
export function adoptHttpPort(fds: readonly number[], open: boolean): HttpPort {
  const ports = fds.map((fd) => adoptOne(fd, open));
  const close = () => {
    for (const port of ports) port.close();
  };
  return { ...(ports[0] as HttpPort), fds: ports.flatMap(({ fds }) => fds), close };
}

function adoptOne(fd: number, open: boolean): HttpPort {
  const handle = newHandle();
  const name: SocketName = {};
  if (handle.open(fd) !== 0 || handle.getsockname(name) !== 0 || !name.address || !name.port) {
    throw new CodedError('PORT_UNUSABLE', `descriptor ${fd} from systemd is no TCP socket`);
  }
  refuseUnlessOpen(name.address, open);
  return httpPortOf(handle, name.address, name.port);
}

/** Whether there may be a server on `host`. @throws CodedError HOST_REFUSED, PORT_UNUSABLE */
export function requireServable(host: string, open: boolean): void {
  if (host === 'localhost') return;
  if (isIP(host) === 0) throw new CodedError('PORT_UNUSABLE', `'${host}' is not an IP address`);
  refuseUnlessOpen(host, open);
}

/** @throws CodedError HOST_REFUSED for an address beyond loopback, unless it is `open` */
export function refuseUnlessOpen(address: string, open: boolean): void {
  if (!open && !LOOPBACK.test(address)) throw new CodedError('HOST_REFUSED', `${address} is not a loopback address`);
}

function newHandle(): TcpHandle {
  const { TCP, constants } = (process as unknown as { binding(name: 'tcp_wrap'): TcpWrap }).binding('tcp_wrap');
  return new TCP(constants.SERVER);
}

function httpPortOf(handle: TcpHandle, host: string, port: number): HttpPort {
  const shown = isIP(host) === 6 ? `[${host}]` : host;
  return { fds: [handle.fd], host, port, url: `http://${shown}:${port}`, close: () => handle.close() };
}

/** With ::1, where there is one and its port is free. */
function withOtherLoopback(port: HttpPort): HttpPort {
  try {
    const other = bindHttpPort('::1', port.port, false);
    const close = () => {
      port.close();
      other.close();
    };
    return { ...port, fds: [...port.fds, ...other.fds], close };
  } catch (error) {
    if (!(error instanceof CodedError)) throw error;
    return port;
  }
}
