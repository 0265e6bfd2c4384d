/**
 * From where a request may come: a page of another site may send requests to loopback, and a name that it controls may
 * lead here (DNS rebinding). Pure.
 */
import type { IncomingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { AccessSettings } from '@qwen-supervisor/protocol/messages';

/** A name or an address, and a port. RFC 9110, 7.2; no user, no path. */
const HOST = /^(\[[0-9a-f:.]{2,45}\]|[a-z0-9_](?:[a-z0-9_.-]{0,252}[a-z0-9_])?)(?::(\d{1,5}))?$/i;
/** RFC 6454, 6.2: no path, no user. */
const ORIGIN = /^([a-z][a-z0-9+.-]{0,50}):\/\/([^\s/?#@\\]{0,255})$/i;
const LOOPBACK = /^(localhost|.+\.localhost|127(\.\d{1,3}){3}|\[::1\])$/;
/**
 * Of programs on this machine: no page of a site can have such an origin. Extensions of browsers are allowed by name.
 */
const APP_SCHEMES = new Set(['app', 'capacitor', 'file', 'ionic', 'tauri', 'vscode-file', 'vscode-webview']);

/** By these this machine is called, from itself, from its network, and from its containers. */
const OWN_NAMES = new Set([
  hostname().toLowerCase(),
  `${hostname().split('.')[0]}.local`.toLowerCase(),
  'host.docker.internal',
  'host.containers.internal',
]);

export interface Whence {
  headers: IncomingHttpHeaders;
  method: string;
  /** Whether it brings a key, which no page has that was not given one. */
  hasKey: boolean;
  /** What it asks for is a picture, whose address nobody can guess. */
  isPicture: boolean;
}

/** @throws CodedError ORIGIN_REFUSED */
export function refuseForeign({ headers, method, hasKey, isPicture }: Whence, settings: AccessSettings): void {
  const { host, origin } = headers;
  if (host !== undefined && !hasKey && !isOurHost(host, settings))
    throw refused(`${host.slice(0, 200)} is not a name of this server`);
  const page = origin ?? pageWithoutOrigin(headers, method, isPicture);
  if (page !== null && !isOwnOrigin(page, host) && !isTrusted(page, settings))
    throw refused(`pages of ${page.slice(0, 200)} may not call this server`);
}

/** Whether a page of ours sends it, or no page at all: what a browser adds by itself, a cookie, counts for no other. */
export function isSameOrigin({ host, origin, 'sec-fetch-site': site }: IncomingHttpHeaders): boolean {
  if (origin !== undefined) return isOwnOrigin(origin, host);
  return site === undefined || site === 'same-origin' || site === 'none';
}

/**
 * Browsers leave the origin out of requests for pictures and scripts, and where a link is followed. Who is led here by
 * a link sees what is here, and the page that led learns nothing. Null where nothing is to be asked.
 */
function pageWithoutOrigin(headers: IncomingHttpHeaders, method: string, isPicture: boolean): string | null {
  if (headers['sec-fetch-site'] !== 'cross-site') return null;
  const isRead = method === 'GET' || method === 'HEAD';
  if (isRead && (isPicture || headers['sec-fetch-dest'] === 'document')) return null;
  const { referer = '' } = headers;
  return URL.canParse(referer) ? new URL(referer).origin : 'another site';
}

function isOurHost(host: string, { allowHosts }: AccessSettings): boolean {
  const name = nameOf(host);
  return name !== null && (LOOPBACK.test(name) || isAddress(name) || OWN_NAMES.has(name) || allowHosts.includes(name));
}

/** An address cannot be a name that leads elsewhere tomorrow. */
function isAddress(name: string): boolean {
  return isIP(name.replace(/^\[|\]$/g, '')) !== 0;
}

/** Without its port, in small letters; null for what is no host. */
export function nameOf(host: string): string | null {
  const [, name, port] = HOST.exec(host) ?? [];
  return name === undefined || Number(port ?? 0) > 65_535 ? null : name.toLowerCase();
}

function isOwnOrigin(origin: string, host: string | undefined): boolean {
  return host !== undefined && (origin === `http://${host}` || origin === `https://${host}`);
}

/** `allow-origins` has origins, and schemes as `app://*`. */
function isTrusted(origin: string, { allowOrigins }: AccessSettings): boolean {
  const [, scheme = '', host = ''] = ORIGIN.exec(origin) ?? [];
  if (scheme === '' || allowOrigins.includes(origin) || allowOrigins.includes(`${scheme}://*`)) return scheme !== '';
  if (APP_SCHEMES.has(scheme)) return true;
  return /^https?$/.test(scheme) && LOOPBACK.test(nameOf(host) ?? '');
}

function refused(why: string): CodedError {
  return new CodedError('ORIGIN_REFUSED', `refused: ${why}`);
}
