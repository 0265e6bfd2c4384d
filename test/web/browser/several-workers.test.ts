/** What the page shows where several workers draw. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Product, startProduct, until } from '../../system/product';
import { browserForTests, hasBrowser } from './browser';

const LONG = { numInferenceSteps: 1000, width: 256, height: 256 };

describe.skipIf(!hasBrowser())('several workers', () => {
  const browser = browserForTests();
  let product: Product;
  beforeAll(async () => {
    product = await startProduct(['--device', 'cpu,cpu,cuda:0', '--restart-max', '1']);
    await until(async () => {
      const { children } = await product.status();
      return children.filter(({ state }) => state === 'ready').length === 3 ? true : null;
    });
  });
  afterAll(() => product.clean());

  test('are shown with what each draws, and one that does not draw is told beside it', async () => {
    const { page } = await browser.open(`${product.url}/app/queue`);
    for (const prompt of ['a fox', 'an owl']) await product.submit({ ...LONG, prompt });
    const rows = page.getByRole('region', { name: 'Running' });
    await until(async () => ((await rows.count()) === 2 ? true : null));
    await rows.first().getByText('on cpu').waitFor();
    await page
      .getByTestId('status')
      .filter({ hasText: /Worker 3 on cuda:0 does not draw: .*given up\./ })
      .waitFor();
    await page
      .getByTestId('status')
      .filter({ hasText: /^Drawing 2 pictures: \d+\/1000, \d+\/1000\./ })
      .waitFor();
    await page.goto(`${product.url}/app/`);
    await page.getByRole('list', { name: 'Also drawn now' }).getByRole('link').waitFor();
    await page.goto(`${product.url}/app/system`);
    await page.locator('[data-child=inference-2]').getByText('drawing').waitFor();
    await page.getByText('The worker 2 computes on').waitFor();
    expect(await page.getByRole('button', { name: /^Restart/ }).allTextContents()).toEqual([
      'Restart worker',
      'Restart worker 2',
      'Restart worker 3',
      'Restart API',
    ]);
    await page.goto(`${product.url}/app/queue`);
    await page.getByRole('button', { name: 'Cancel 2 running' }).click();
    await until(async () => ((await rows.count()) === 0 ? true : null));
    expect((await product.status()).queue).toMatchObject({ running: 0 });
  });

  test('of one that is killed the picture is shown where it went on, and the other goes on', async () => {
    const [fox, owl] = [
      await product.submit({ ...LONG, prompt: 'a fox' }),
      await product.submit({ ...LONG, prompt: 'an owl' }),
    ];
    const { page } = await browser.open(`${product.url}/app/queue`);
    const row = (prompt: string) => page.getByRole('region', { name: 'Running' }).filter({ hasText: prompt });
    await until(async () => ((await product.job(owl.id)).step > 3 ? true : null));
    const holder = (await product.status()).children.find(({ job }) => job === owl.id);
    process.kill(holder?.pid as number, 'SIGKILL');
    await row('an owl')
      .getByText(/Went on at step \d+ after attempt 1 had ended/)
      .waitFor();
    expect(await product.job(fox.id)).toMatchObject({ status: 'running', attempts: 1 });
    await product.call('/api/v1/jobs/cancel', { scope: 'running' });
  });
});
