/** The connection of the page: what it does when it is gone, silent, or not wanted. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type Product, startProduct, until } from '../../system/product';
import { browserForTests, hasBrowser } from './browser';

describe.skipIf(!hasBrowser())('the page', () => {
  const browser = browserForTests();
  let product: Product;
  beforeAll(async () => {
    product = await startProduct();
    await product.ready();
  });
  afterEach(async () => {
    for (const scope of ['queued', 'running']) await product.call('/api/v1/jobs/cancel', { scope });
  });
  afterAll(() => product.clean());

  test('says that the connection is lost, keeps what it knows, and comes back by itself with all that happened', async () => {
    const { page } = await browser.open(`${product.url}/app/queue`);
    await page.getByText('Nothing is queued').waitFor();
    await page.context().setOffline(true);
    process.kill(await product.pidOf('api'), 'SIGKILL');
    await page
      .getByTestId('status')
      .filter({ hasText: /^Connection lost \d+ s ago/ })
      .waitFor();
    expect(await page.locator('.frame').getAttribute('data-stale')).toBe('true');
    const { id } = await until(() =>
      product.submit({ prompt: 'while it was away', numInferenceSteps: 2 }).catch(() => null),
    );
    await until(() => product.ended(id).catch(() => null));
    await page.context().setOffline(false);
    await page.getByTestId('ended').filter({ hasText: 'while it was away' }).waitFor();
    await page.getByTestId('status').filter({ hasText: 'ready' }).waitFor();
  });

  test('takes a new snapshot where too much was missed', async () => {
    const { page } = await browser.open(`${product.url}/app/queue`);
    await page.getByText('Nothing is queued').waitFor();
    // Told by its stream, which is open then, and breaks: one that is only asked for would be the next API's.
    await product.submit({ prompt: 'before the reset', numInferenceSteps: 2 });
    await page.getByTestId('ended').filter({ hasText: 'before the reset' }).waitFor();
    const reset = {
      headers: { 'content-type': 'text/event-stream' },
      body: 'event: reset\ndata: {"lastEventId":"x-1"}\n\n',
    };
    // Before the route: the page's first stream may meet it, too.
    const snapshot = page.waitForResponse('**/api/v1/snapshot');
    await page.route('**/api/v1/events*', (route) => route.fulfill(reset), { times: 1 });
    process.kill(await product.pidOf('api'), 'SIGKILL');
    expect((await snapshot).status()).toBe(200);
    const { id } = await until(() =>
      product.submit({ prompt: 'after the reset', numInferenceSteps: 2 }).catch(() => null),
    );
    await page.getByTestId('ended').filter({ hasText: 'after the reset' }).waitFor();
    await product.ended(id);
  });

  test('a ninth tab loads beside eight that are open', async () => {
    const { page: first } = await browser.open(`${product.url}/app/`);
    const context = first.context();
    const tabs = [first];
    // As a browser does with tabs that nobody looks at for a minute.
    for (let i = 0; i < 8; i++) {
      for (const tab of tabs)
        await tab.evaluate(() => {
          Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true });
          document.dispatchEvent(new Event('visibilitychange'));
        });
      const tab = await context.newPage();
      await tab.clock.install();
      await tab.goto(`${product.url}/app/`);
      await tab.locator('#prompt').waitFor();
      tabs.push(tab);
      await tab.evaluate(() => {
        Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true });
        document.dispatchEvent(new Event('visibilitychange'));
      });
      await tab.clock.fastForward(61_000);
    }
    const ninth = tabs.at(-1);
    await ninth?.evaluate(() => {
      Object.defineProperty(document, 'visibilityState', { value: 'visible', configurable: true });
      document.dispatchEvent(new Event('visibilitychange'));
    });
    await ninth?.getByTestId('status').filter({ hasText: 'ready' }).waitFor();
  });

  test('offers to reload when the server has become another version, and keeps the text', async () => {
    const { page } = await browser.open(`${product.url}/app/`);
    await page.fill('#prompt', 'half a prompt');
    // The version that the page was made for is that of its first snapshot.
    await page.getByTestId('status').filter({ hasText: 'ready' }).waitFor();
    await page.route('**/api/v1/snapshot', async (route) => {
      const response = await route.fetch();
      await route.fulfill({ json: { ...(await response.json()), version: '9.9.9' } });
    });
    const reset = { headers: { 'content-type': 'text/event-stream' }, body: 'event: reset\ndata: {}\n\n' };
    await page.route('**/api/v1/events*', (route) => route.fulfill(reset), { times: 1 });
    process.kill(await product.pidOf('api'), 'SIGKILL');
    await page.getByRole('button', { name: /The server was updated/ }).click();
    await page.waitForLoadState();
    expect(await page.inputValue('#prompt')).toBe('half a prompt');
    await page.getByRole('button', { name: /The server was updated/ }).waitFor({ state: 'detached' });
  });

  test('forgets nothing where a reset and what comes after it arrive together', async () => {
    const { page } = await browser.open(`${product.url}/app/queue`);
    await page.getByRole('heading', { name: 'Nothing is queued' }).waitFor();
    const body = 'event: reset\ndata: {}\n\nid: 0-99\nevent: decoding\ndata: {"id":"x"}\n\n';
    const together = { headers: { 'content-type': 'text/event-stream' }, body };
    const snapshot = page.waitForResponse('**/api/v1/snapshot');
    await page.route('**/api/v1/events*', (route) => route.fulfill(together), { times: 1 });
    process.kill(await product.pidOf('api'), 'SIGKILL');
    expect((await snapshot).status()).toBe(200);
  });

  test('a tab that nobody has ever looked at lets its connection go, and is right when somebody does', async () => {
    const { page: first } = await browser.open(`${product.url}/app/`);
    const page = await first.context().newPage();
    await page.clock.install();
    await page.addInitScript(() => {
      Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true, writable: true });
    });
    const closed = page.waitForEvent('requestfailed', (request) => request.url().includes('/api/v1/events'));
    await page.goto(`${product.url}/app/queue`);
    await page.getByTestId('status').waitFor();
    await page.clock.runFor(61_000);
    await closed;
    const { id } = await product.submit({ prompt: 'nobody looks', numInferenceSteps: 2 });
    await product.ended(id);
    await page.evaluate(() => {
      Object.defineProperty(document, 'visibilityState', { value: 'visible', configurable: true });
      document.dispatchEvent(new Event('visibilitychange'));
    });
    await page.getByTestId('ended').filter({ hasText: 'nobody looks' }).waitFor();
  });
});
