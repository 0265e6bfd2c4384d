/** The page where keys are asked for, and below the path of a proxy. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { temporaryFolder } from '../../fixture-files';
import { type Product, startProduct, until } from '../../system/product';
import { browserForTests, hasBrowser } from './browser';

const KEY = 'use-0123456789abcdef0123456789abcdef';
const ADMIN = 'adm-0123456789abcdef0123456789abcdef';

describe.skipIf(!hasBrowser())('the page', () => {
  const browser = browserForTests();

  async function withKeys(args: string[] = []): Promise<Product> {
    const file = join(temporaryFolder(), 'keys');
    writeFileSync(file, `use ${KEY}\nadmin ${ADMIN}\n`, { mode: 0o600 });
    const product = await startProduct(['--keys-file', file, ...args]);
    onTestFinished(() => product.clean());
    return product;
  }
  const signIn = async (page: import('playwright-core').Page, key: string) => {
    await page.getByLabel('Key', { exact: true }).fill(key);
    await page.getByRole('button', { name: 'Sign in' }).click();
  };

  test('asks for a key, refuses a wrong one, and then shows everything that the key may', async () => {
    const product = await withKeys();
    const { page } = await browser.open(`${product.url}/app/`);
    await signIn(page, 'a wrong key');
    await page.getByText('This key is not one of this server.').waitFor();
    await signIn(page, KEY);
    await page.fill('#prompt', 'a fox on a teal background');
    await page.press('#prompt', 'Control+Enter');
    const picture = page.locator('.stage .finished img');
    await picture.waitFor({ timeout: 120_000 });
    await until(async () =>
      (await picture.evaluate((image: HTMLImageElement) => image.naturalWidth)) === 128 ? true : null,
    );
    await page.goto(`${product.url}/app/system`);
    const restart = page.getByRole('button', { name: 'Restart worker' });
    await restart.waitFor();
    expect(await restart.getAttribute('aria-disabled')).toBe('true');
    await page.getByText('Where keys are asked for').or(page.locator('.log .problem')).first().waitFor();
    expect(await page.evaluate(() => document.cookie), 'no script can read the session').toBe('');
  });

  test('lets an admin restart the worker, and tells that it was no crash', async () => {
    const product = await withKeys();
    const { page } = await browser.open(`${product.url}/app/system`);
    await signIn(page, ADMIN);
    const worker = page.locator('[data-child=inference]');
    await worker.getByText('ready', { exact: true }).first().waitFor({ timeout: 120_000 });
    const pid = /process (\d+)/.exec((await worker.textContent()) ?? '')?.[1];
    await page.getByRole('button', { name: 'Restart worker' }).click();
    await until(async () => {
      const text = (await worker.textContent()) ?? '';
      const now = /process (\d+)/.exec(text)?.[1];
      return now !== undefined && now !== pid && /ready/.test(text) ? true : null;
    });
    await page.getByText('No unplanned restart in 7 days').waitFor();
    await page.getByRole('log').getByText('ready').first().waitFor();
  });

  test('works below a path', async () => {
    const product = await startProduct(['--path-prefix', '/qwen']);
    onTestFinished(() => product.clean());
    const { page } = await browser.open(`${product.url}/qwen/app/queue`);
    await page.getByText('Nothing is queued').waitFor();
    await page.getByRole('link', { name: 'Gallery' }).click();
    await page.getByText('No pictures yet').waitFor();
    expect(new URL(page.url()).pathname).toBe('/qwen/app/gallery');
    await page.reload();
    await page.getByText('No pictures yet').waitFor();
  });

  test('by a name in the house, over plain http, works, and says what browsers do not allow there', async () => {
    const product = await withKeys(['--allow-hosts', 'house.test']);
    const { port } = new URL(product.url);
    const { page } = await browser.open(`http://house.test:${port}/app/`, { viewport: { width: 390, height: 844 } });
    expect(await page.evaluate(() => [window.isSecureContext, 'clipboard' in navigator])).toEqual([false, false]);
    await signIn(page, KEY);
    await page.fill('#prompt', 'a fox on a teal background');
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    await page.locator('.stage .finished img').waitFor({ timeout: 120_000 });
    await page.locator('.recent a').first().click();
    await page.getByRole('button', { name: 'Copy prompt' }).click();
    await page.getByText('Prompt copied.').waitFor();
    await page.getByRole('button', { name: 'Keys and settings' }).click();
    await page.getByText('Browsers show notices only for pages over https').waitFor();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByLabel('Key', { exact: true }).waitFor();
  });
});
