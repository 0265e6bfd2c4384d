/** The address by which a client reached us, for addresses in answers: that of a proxy, where one is believed. */
import { BlockList, isIP } from 'node:net';
import type { AccessSettings } from '@qwen-supervisor/protocol/messages';
import type { FastifyRequest } from 'fastify';
import { nameOf } from './origins.js';

/** What the operator says of where we are. */
type Placed = Pick<AccessSettings, 'pathPrefix' | 'trustedProxies'>;

const PREFIX = /^(\/[\w.~-]{1,100}){1,10}$/;

/** `https://host:port/prefix`, without a slash at its end. */
export function publicUrl(request: FastifyRequest, placed: Placed): string {
  const { protocol, host, headers } = request;
  const ownHost = headers.host ?? request.socket.localAddress ?? 'localhost';
  const scheme = protocol === 'https' ? 'https' : 'http';
  return `${scheme}://${nameOf(host) === null ? ownHost : host}${prefixOf(request, placed)}`;
}

/** Where a proxy has put us: below which path. Empty for the root. */
export function prefixOf({ headers, socket }: FastifyRequest, { pathPrefix, trustedProxies }: Placed): string {
  const forwarded = headers['x-forwarded-prefix'];
  const prefix = typeof forwarded === 'string' ? forwarded.replace(/\/$/, '') : '';
  return isProxy(socket.remoteAddress, trustedProxies) && PREFIX.test(prefix) ? prefix : pathPrefix;
}

function isProxy(address: string | undefined, trusted: readonly string[]): boolean {
  if (address === undefined || trusted.length === 0) return false;
  const proxies = new BlockList();
  for (const one of trusted) {
    const [network = '', bits] = one.split('/');
    const family = isIP(network) === 6 ? 'ipv6' : 'ipv4';
    if (bits === undefined) proxies.addAddress(network, family);
    else proxies.addSubnet(network, Number(bits), family);
  }
  return proxies.check(address.replace(/^::ffff:/, ''), isIP(address.replace(/^::ffff:/, '')) === 6 ? 'ipv6' : 'ipv4');
}
