/** The queue as a person moves and empties it. */
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Product, startProduct, until } from '../../system/product';
import { browserForTests, hasBrowser } from './browser';

describe.skipIf(!hasBrowser())('the queue', () => {
  const browser = browserForTests();
  let product: Product;
  let running: string;
  beforeAll(async () => {
    product = await startProduct();
    await product.ready();
  });
  afterAll(() => product.clean());
  beforeEach(async () => {
    for (const scope of ['queued', 'running']) await product.call('/api/v1/jobs/cancel', { scope });
    running = (await product.submit({ prompt: 'long', numInferenceSteps: 1000, width: 256, height: 256 })).id;
    await until(async () => ((await product.job(running)).status === 'running' ? true : null));
  });

  const submit = async (prompt: string) => (await product.submit({ prompt, numInferenceSteps: 2 })).id;
  const statusOf = async (id: string) => (await product.job(id)).status;
  const onServer = async () => {
    const { queue } = (await product.call('/api/v1/snapshot')).json as unknown as { queue: { prompt: string }[] };
    return queue.map(({ prompt }) => prompt).join(' ');
  };
  const shown = async (page: Page) =>
    (await page.getByTestId('queued').locator('.prompt-line').allTextContents()).join(' ');
  const both = (page: Page, order: string) =>
    until(async () => ((await onServer()) === order && (await shown(page)) === order ? true : null));
  const row = (page: Page, prompt: string) => page.getByTestId('queued').filter({ hasText: prompt });
  const open = async () => {
    const { page } = await browser.open(`${product.url}/app/queue`);
    return page;
  };

  test('is moved by buttons, by keys and by hand, and the server has the same order', async () => {
    for (const prompt of ['one', 'two', 'three', 'four']) await submit(prompt);
    const page = await open();
    await both(page, 'one two three four');
    await row(page, 'three').getByRole('button', { name: 'Move to the front' }).click();
    await both(page, 'three one two four');
    await row(page, 'three').getByRole('button', { name: 'Move to the end' }).click();
    await both(page, 'one two four three');
    await row(page, 'two').focus();
    await page.keyboard.press('Alt+ArrowUp');
    await both(page, 'two one four three');
    expect(await row(page, 'two').evaluate((element) => element === document.activeElement)).toBe(true);
    await page.keyboard.press('Alt+ArrowDown');
    await page.keyboard.press('Alt+End');
    await both(page, 'one four three two');
    await row(page, 'two').dragTo(row(page, 'one'));
    await both(page, 'two one four three');
    await row(page, 'two').dragTo(row(page, 'four'));
    await both(page, 'one four two three');
  });

  test('a button that can do nothing says why, and does nothing', async () => {
    await submit('one');
    const page = await open();
    const up = row(page, 'one').getByRole('button', { name: 'Move up' });
    expect([await up.getAttribute('aria-disabled'), await up.getAttribute('title')]).toEqual([
      'true',
      'It is the first.',
    ]);
  });

  test('each cancel takes what its words say, and nothing else', async () => {
    const one = await submit('one');
    const jobs = ['g1', 'g2', 'g3'].map((prompt) => ({ prompt, numInferenceSteps: 2 }));
    const group = (await product.call('/api/v1/groups', { jobs })).json as unknown as { jobs: { id: string }[] };
    const last = await submit('last');
    const page = await open();
    await both(page, 'one g1 g2 g3 last');
    await row(page, 'one').getByRole('button', { name: 'Cancel' }).click();
    await both(page, 'g1 g2 g3 last');
    expect(await statusOf(one)).toBe('cancelled');
    await page.getByRole('button', { name: 'Cancel these 3' }).click();
    await both(page, 'last');
    expect(await statusOf(group.jobs[0]?.id as string)).toBe('cancelled');
    expect(await statusOf(running)).toBe('running');
    await page.getByRole('button', { name: 'Cancel 1 queued' }).click();
    await until(async () => ((await statusOf(last)) === 'cancelled' ? true : null));
    expect(await statusOf(running)).toBe('running');
    await page.getByRole('button', { name: 'Cancel running' }).click();
    await until(async () => ((await statusOf(running)) === 'cancelled' ? true : null));
    expect(await page.locator('.problem').count(), 'cancelled is no failure').toBe(0);
  });

  test('by keys alone: a row is reached, walked from, and cancelled', async () => {
    for (const prompt of ['one', 'two']) await submit(prompt);
    const page = await open();
    await both(page, 'one two');
    await page.keyboard.press('1');
    await page.keyboard.press('2');
    await page.getByTestId('queued').first().waitFor();
    for (let i = 0; i < 30 && !(await row(page, 'one').evaluate((e) => e === document.activeElement)); i++)
      await page.keyboard.press('Tab');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Delete');
    await both(page, 'one');
  });

  test('tells two browsers the same', async () => {
    const [first, second] = [await open(), await open()];
    await submit('one');
    await both(first, 'one');
    await both(second, 'one');
    await row(first, 'one').getByRole('button', { name: 'Cancel' }).click();
    await both(second, '');
  });

  test('a picture that brings the worker down twice says so in its row, with what to do, and can be tried again', async () => {
    for (let i = 0; i < 2; i++) {
      const { attempts } = await until(async () => {
        const job = await product.job(running);
        return job.status === 'running' && job.step > 2 && job.attempts === i + 1 ? job : null;
      });
      expect(attempts).toBe(i + 1);
      // Of its own making: a fault in memory.
      process.kill(await product.pidOf('inference'), 'SIGSEGV');
      await until(async () =>
        (await product.job(running)).attempts > attempts || (await statusOf(running)) === 'failed' ? true : null,
      );
    }
    const page = await open();
    const failed = page.getByTestId('ended').filter({ hasText: 'JOB_POISONED' });
    await failed.waitFor();
    const before = ((await product.call('/api/v1/jobs?limit=1')).json as unknown as { jobs: { id: string }[] }).jobs[0]
      ?.id;
    await failed.getByRole('button', { name: 'Retry' }).click();
    await until(async () => {
      const [newest] = (
        (await product.call('/api/v1/jobs?limit=1')).json as unknown as { jobs: { id: string; retryOf: string }[] }
      ).jobs;
      return newest?.id !== before && newest?.retryOf === running ? true : null;
    });
  });

  test('to cancel those of a group that wait leaves the one of it that is drawn', async () => {
    await product.call('/api/v1/jobs/cancel', { scope: 'running' });
    const jobs = ['g1', 'g2', 'g3'].map((prompt) => ({ prompt, numInferenceSteps: 1000, width: 256, height: 256 }));
    const group = (await product.call('/api/v1/groups', { jobs })).json as unknown as { jobs: { id: string }[] };
    const [first = '', second = ''] = group.jobs.map(({ id }) => id);
    await until(async () => ((await statusOf(first)) === 'running' ? true : null));
    const page = await open();
    await page.getByRole('button', { name: 'Cancel these 2' }).click();
    await both(page, '');
    expect([await statusOf(first), await statusOf(second)]).toEqual(['running', 'cancelled']);
  });

  test('with more waiting than a page knows the one that is drawn is always shown, and the number is right', async () => {
    const jobs = Array.from({ length: 70 }, (_, i) => ({ prompt: `many ${i}`, numInferenceSteps: 2 }));
    await product.call('/api/v1/groups', { jobs });
    const page = await open();
    await page.getByText('70 pictures queued').waitFor();
    await product.call('/api/v1/jobs/cancel', { scope: 'running' });
    const last =
      ((await product.call('/api/v1/jobs?limit=1')).json as unknown as { jobs: { id: string }[] }).jobs[0]?.id ?? '';
    await product.ended(last);
    await page.getByText('Nothing is queued').waitFor();
    await page.getByTestId('ended').filter({ hasText: 'many 69' }).waitFor();
    await page.reload();
    await page.getByTestId('ended').filter({ hasText: 'many 69' }).waitFor();
  });

  test('commands are found by their words, by keys alone', async () => {
    const page = await open();
    await page.keyboard.press('Control+k');
    await page.keyboard.type('gallery');
    await page.keyboard.press('Enter');
    await page.getByText('No pictures yet').or(page.getByRole('gridcell')).first().waitFor();
    expect(new URL(page.url()).pathname).toBe('/app/gallery');
  });
});
