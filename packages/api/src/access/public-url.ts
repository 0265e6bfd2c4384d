/** The address by which a client reached us, for addresses in answers: that of a proxy, where one is believed. */
import type { FastifyRequest } from 'fastify';
import { nameOf } from './origins.js';

const PREFIX = /^(\/[\w.~-]{1,100}){1,10}$/;

/** `https://host:port/prefix`, without a slash at its end. */
export function publicUrl(request: FastifyRequest, pathPrefix: string): string {
  const { protocol, host, headers } = request;
  const ownHost = headers.host ?? request.socket.localAddress ?? 'localhost';
  const scheme = protocol === 'https' ? 'https' : 'http';
  return `${scheme}://${nameOf(host) === null ? ownHost : host}${prefixOf(request, pathPrefix)}`;
}

/** Where a proxy has put us: below which path. Empty for the root. */
export function prefixOf({ headers, ip, socket }: FastifyRequest, pathPrefix: string): string {
  // Whoever is believed about the client's address is believed here, too.
  const isBelieved = ip !== socket.remoteAddress || headers['x-forwarded-for'] !== undefined;
  const forwarded = headers['x-forwarded-prefix'];
  const prefix = typeof forwarded === 'string' ? forwarded.replace(/\/$/, '') : '';
  return isBelieved && PREFIX.test(prefix) ? prefix : pathPrefix;
}
