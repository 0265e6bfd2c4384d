import { hostname } from 'node:os';
import { isSameOrigin, nameOf, refuseForeign } from '@qwen-supervisor/api/access/origins';
import { describe, expect, test } from 'vitest';
import { ACCESS } from '../fake-backend.js';

const SETTINGS = { ...ACCESS, allowHosts: ['gpu.lan'], allowOrigins: ['https://a.example', 'chrome-extension://*'] };

function isLetIn(headers: Record<string, string>, more: Partial<Parameters<typeof refuseForeign>[0]> = {}): boolean {
  try {
    const whence = { headers: { host: 'localhost:8000', ...headers }, method: 'POST', hasKey: false, isPicture: false };
    refuseForeign({ ...whence, ...more }, SETTINGS);
    return true;
  } catch (error) {
    expect(error).toMatchObject({ code: 'ORIGIN_REFUSED' });
    return false;
  }
}

describe('the host by which we are called', () => {
  test.each([
    'localhost',
    'localhost:8000',
    'LOCALHOST',
    'a.localhost:1',
    '127.0.0.1',
    '127.9.9.9:80',
    '[::1]:8000',
    '192.168.1.7:8000',
    '[fe80::1]',
    'gpu.lan:8000',
    hostname(),
    'host.docker.internal:8000',
  ])('%s is one of ours', (host) => expect(isLetIn({ host })).toBe(true));

  test.each([
    'evil.com',
    'evil.com@127.0.0.1',
    'localhost.evil.com',
    '127.0.0.1.evil.com',
    'localhost/',
    'localhost:99999',
    'localhost:8000:1',
    'local host',
    '',
    '[::1',
    'http://localhost',
    'localhost?',
    'gpu.lan.',
    '１２７.0.0.1',
  ])('%s is none', (host) => {
    expect(isLetIn({ host })).toBe(false);
    expect(nameOf(host) === null || !['localhost', '127.0.0.1'].includes(nameOf(host) as string)).toBe(true);
  });

  test('does not matter to who brings a key: a rebound name has none', () => {
    expect(isLetIn({ host: 'qwen' }, { hasKey: true })).toBe(true);
    expect(isLetIn({ host: 'qwen' })).toBe(false);
  });
});

describe('the page that calls', () => {
  test.each([
    'http://localhost:8000',
    'http://localhost:3000',
    'http://127.0.0.1:8170',
    'https://a.example',
    'tauri://localhost',
    'http://tauri.localhost',
    'app://obsidian.md',
    'vscode-webview://0abc',
    'capacitor://localhost',
    'file://',
    'chrome-extension://abc',
  ])('%s may', (origin) => expect(isLetIn({ origin })).toBe(true));

  test.each([
    'null',
    'https://b.example',
    'http://a.example',
    'https://a.example.b.example',
    'javascript://localhost/',
    'data:text/html,x',
    'moz-extension://abc',
    'http://localhost@evil.com',
    'http://evil.com#localhost',
    'http://localhost.evil.com',
    'app:obsidian',
    'https://a.example, http://localhost',
    '',
  ])('%s may not', (origin) => expect(isLetIn({ origin })).toBe(false));

  test('is known by what the browser says where it leaves the origin out', () => {
    const cross = { 'sec-fetch-site': 'cross-site' };
    expect(isLetIn(cross)).toBe(false);
    expect(isLetIn(cross, { method: 'GET' })).toBe(false);
    expect(isLetIn({ ...cross, referer: 'http://localhost:3000/page' }, { method: 'GET' })).toBe(true);
    expect(isLetIn({ ...cross, referer: 'https://b.example/page' }, { method: 'GET' })).toBe(false);
    expect(isLetIn({ ...cross, 'sec-fetch-dest': 'document' }, { method: 'GET' }), 'a link is followed').toBe(true);
    expect(isLetIn(cross, { method: 'GET', isPicture: true }), 'a picture is shown').toBe(true);
    expect(isLetIn(cross, { method: 'DELETE', isPicture: true })).toBe(false);
  });
});

test('a cookie counts for pages of ours alone', () => {
  const host = '127.0.0.1:8000';
  for (const ours of [
    {},
    { 'sec-fetch-site': 'same-origin' },
    { 'sec-fetch-site': 'none' },
    { origin: `http://${host}` },
  ])
    expect(isSameOrigin({ host, ...ours })).toBe(true);
  for (const foreign of [
    { 'sec-fetch-site': 'same-site' },
    { 'sec-fetch-site': 'cross-site' },
    { origin: 'http://127.0.0.1:3000' },
    { origin: 'null', 'sec-fetch-site': 'same-origin' },
  ])
    expect(isSameOrigin({ host, ...foreign })).toBe(false);
});
