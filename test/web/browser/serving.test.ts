/** The files of the page, as they come over HTTP. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cli, type Product, startProduct } from '../../system/product';

let product: Product;
beforeAll(async () => {
  product = await startProduct();
});
afterAll(() => product.clean());

async function script(): Promise<string> {
  const document = await (await product.fetch('/app/')).text();
  return `/app/${/src="\.\/(assets\/[^"]+\.js)"/.exec(document)?.[1]}`;
}

test('browsers are led to the page, which lets in nothing from elsewhere, and is asked for anew each time', async () => {
  const led = await product.fetch('/', { headers: { accept: 'text/html' }, redirect: 'manual' });
  expect([led.status, led.headers.get('location')]).toEqual([302, '/app/']);
  const { headers } = await product.fetch('/app/');
  expect(headers.get('content-security-policy')).toMatch(
    /default-src 'none'; script-src 'self';.*frame-ancestors 'none'/,
  );
  expect([headers.get('cache-control'), headers.get('content-type')]).toEqual(['no-cache', 'text/html; charset=utf-8']);
});

test('its files never change, and come packed to those who can unpack them', async () => {
  const path = await script();
  const as = async (encoding: string) =>
    (await product.fetch(path, { headers: { 'accept-encoding': encoding } })).headers;
  expect((await as('identity')).get('cache-control')).toBe('public, max-age=31536000, immutable');
  const encodings = ['br, gzip', 'gzip', 'identity'].map(async (encoding) =>
    (await as(encoding)).get('content-encoding'),
  );
  expect(await Promise.all(encodings)).toEqual(['br', 'gzip', null]);
  expect((await as('br')).get('vary')).toContain('accept-encoding');
});

test('a place in the page is the page, and what is not there is said to be so', async () => {
  for (const place of ['/app', '/app/queue', '/app/gallery/job_1', '/app/no/such/place'])
    expect((await product.fetch(place)).headers.get('content-type'), place).toBe('text/html; charset=utf-8');
  for (const file of [
    '/app/assets/none.js',
    '/app/index.html',
    '/app/..%2f..%2fpackage.json',
    '/app/assets/%2e%2e/index.html.br',
  ]) {
    const { status, json } = await product.call(file);
    expect([status, (json as { error?: { code: string } }).error?.code], file).toEqual([404, 'NOT_FOUND']);
  }
});

test("'open --print' tells its address", async () => {
  const { stdout, code } = await cli(['open', '--print', '--data-dir', product.dataDir]);
  expect([stdout, code]).toEqual([`${product.url}/app/\n`, 0]);
});
