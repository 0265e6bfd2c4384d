/** The screen for whoever runs the server. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { NASTY, type Product, startProduct, until } from '../../system/product';
import { browserForTests, hasBrowser } from './browser';

describe.skipIf(!hasBrowser())('the system screen', () => {
  const browser = browserForTests();
  let product: Product;
  beforeAll(async () => {
    product = await startProduct();
    await product.ready();
  });
  afterAll(() => product.clean());

  test('shows a crash with its cause, its last lines and what it held, and counts it as unplanned', async () => {
    const { page } = await browser.open(`${product.url}/app/system`);
    await page.getByText('No unplanned restart in 7 days').waitFor();
    const { id } = await product.submit({ prompt: 'a fox', numInferenceSteps: 500 });
    await until(async () => ((await product.job(id)).step > 3 ? true : null));
    process.kill(await product.pidOf('inference'), 'SIGKILL');
    await page.getByText('1 unplanned restart in 7 days').waitFor();
    await page
      .locator('[data-child=inference]')
      .getByText(/One unplanned restart since/)
      .waitFor();
    await page.getByText(/worker, killed \(SIGKILL\)/).click();
    await page.getByText(/at step \d+ of/).waitFor();
    await page.getByRole('link', { name: 'a picture' }).click();
    await page.waitForURL(`**/app/jobs/${id}`);
    await product.call(`/api/v1/jobs/${id}/cancel`, {});
  });

  test('follows the log at its end, and leaves in peace who reads further up', async () => {
    const { page } = await browser.open(`${product.url}/app/system`);
    const log = page.getByRole('log');
    await log.getByText('the page is at').waitFor();
    const top = () => log.evaluate(({ scrollTop }) => scrollTop);
    await until(async () => {
      // Not before there is somewhere to go.
      await log.evaluate((element) => element.scrollTo(0, 0));
      return (await log.getAttribute('data-following')) === null ? true : null;
    });
    for (let i = 0; i < 5; i++)
      await product.ended((await product.submit({ prompt: `line ${i}`, numInferenceSteps: 1 })).id);
    await page.getByRole('button', { name: /new lines?/ }).waitFor();
    expect(await top()).toBe(0);
    await page.getByRole('button', { name: /new lines?/ }).click();
    await until(async () => ((await top()) > 0 ? true : null));
    await page.getByLabel('Least level').selectOption('error');
    await until(async () => ((await log.locator('div').count()) === 0 ? true : null));
  });

  test('tells how a load gets on, and unloads on request', async () => {
    const { page } = await browser.open(`${product.url}/app/system`);
    await page.getByRole('button', { name: 'Unload the model' }).click();
    await page
      .getByTestId('status')
      .filter({ hasText: 'pocket is not in memory. The next picture loads it.' })
      .waitFor();
    await page.getByRole('button', { name: 'Load the model' }).click();
    await page
      .getByRole('region', { name: 'Load' })
      .or(page.getByTestId('status').filter({ hasText: 'ready' }))
      .first()
      .waitFor();
    await page.getByTestId('status').filter({ hasText: 'pocket is ready' }).waitFor();
  });

  test('a load that stands still says so, and what becomes of it', async () => {
    const stalled = await startProduct(['--load-stall-seconds', '32'], undefined, { ...NASTY, NASTY_LOAD: 'stall' });
    onTestFinished(() => stalled.clean());
    const { page } = await browser.open(`${stalled.url}/app/system`);
    // What is missed in one load is there in the next.
    page.setDefaultTimeout(200_000);
    const said = (text: RegExp) => page.getByTestId('status').filter({ hasText: text }).waitFor();
    await said(/Loading pocket: transformer, \d+ MB of \d+ MB[.,]/);
    const load = page.getByRole('region', { name: 'Load' });
    expect(await load.locator('[aria-current=step]').textContent()).toContain('transformer');
    await said(/Loading has stood still for \d+ s at \d+ MB\. If it goes on so it is stopped and tried again\./);
    await page
      .locator('[data-child=inference]')
      .getByText(/One unplanned restart .*: stalled/)
      .waitFor();
  });
});
