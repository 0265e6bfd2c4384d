/** Where in the page we are: paths below its base. */
import { navigate } from 'wouter/use-browser-location';

/** Without a slash at its end, as the router wants it. */
export const BASE = new URL(document.baseURI).pathname.replace(/\/$/, '');

export function go(path: string, replace = false): void {
  navigate(BASE + path, { replace });
}

export function here(): string {
  return location.pathname.slice(BASE.length) || '/';
}
