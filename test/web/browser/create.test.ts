/** Drawing pictures from the page, while nothing and everything goes wrong. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readPngTexts } from '@qwen-supervisor/protocol/png-text';
import type { Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { temporaryFolder } from '../../fixture-files';
import { type Product, startProduct, until } from '../../system/product';
import { browserForTests, hasBrowser } from './browser';

describe.skipIf(!hasBrowser())('the page', () => {
  const browser = browserForTests();
  let product: Product;
  let app: string;
  beforeAll(async () => {
    product = await startProduct();
    app = `${product.url}/app/`;
    await product.ready();
  });
  afterEach(async () => {
    await product.call('/api/v1/jobs/cancel', { scope: 'queued' });
    await product.call('/api/v1/jobs/cancel', { scope: 'running' });
  });
  afterAll(() => product.clean());

  const write = async (page: Page, prompt: string, steps?: number) => {
    await page.fill('#prompt', prompt);
    if (steps === undefined) return;
    await page.getByText('More: steps').click();
    await page.getByLabel('Steps').fill(String(steps));
  };
  const send = (page: Page) => page.press('#prompt', 'Control+Enter');
  const newest = async () =>
    ((await product.call('/api/v1/jobs?limit=1')).json as unknown as { jobs: JobOf[] }).jobs[0] as JobOf;
  type JobOf = Awaited<ReturnType<Product['job']>>;
  const text = async (page: Page, id: string) => (await page.getByTestId(id).textContent()) ?? '';

  test('draws what was written: the preview sharpens, and the picture is there, without a reload', async () => {
    const { page } = await browser.open(app);
    await write(page, 'a fox on a teal background', 60);
    const seed = await page.getByLabel('Seed', { exact: true }).inputValue();
    await send(page);
    const previews = new Set<string>();
    await until(async () => {
      const src = await page
        .locator('[data-testid=preview] img')
        .getAttribute('src', { timeout: 1000 })
        .catch(() => null);
      if (src?.startsWith('data:')) previews.add(src);
      return previews.size >= 3 ? true : null;
    });
    const finished = page.locator('.stage .finished img');
    await finished.waitFor();
    const job = await newest();
    expect(job).toMatchObject({ prompt: 'a fox on a teal background', seed: Number(seed), numInferenceSteps: 60 });
    await until(async () => ((await finished.getAttribute('src'))?.endsWith(job.id) ? true : null));
    expect(await page.locator('.recent img').first().getAttribute('src')).toContain(job.id);
    const file = readFileSync(join(product.dataDir, 'images', `${job.id}.png`));
    expect(readPngTexts(file).parameters).toContain(`Seed: ${seed}`);
    expect(await page.getByLabel('Seed', { exact: true }).inputValue(), 'the next one is another picture').not.toBe(
      seed,
    );
  });

  test('after a reload in mid-picture is where it was, with preview and text, and so is another browser', async () => {
    const { page } = await browser.open(app);
    await write(page, 'an owl on green', 400);
    await send(page);
    await page.locator('[data-testid=preview] img[src^=data]').waitFor();
    const stepOf = async (on: Page) => Number(/Drawing (\d+)\//.exec(await text(on, 'running'))?.[1]);
    await until(async () => ((await stepOf(page)) > 5 ? true : null));
    const before = await stepOf(page);
    await write(page, 'what I was writing');
    await page.reload();
    await page.locator('[data-testid=preview] img[src^=data]').waitFor();
    expect(await stepOf(page)).toBeGreaterThanOrEqual(before);
    expect(await page.inputValue('#prompt')).toBe('what I was writing');
    const { page: phone } = await browser.open(app, { viewport: { width: 390, height: 844 } });
    await phone.locator('[data-testid=preview] img[src^=data]').waitFor();
    expect(await stepOf(phone)).toBeGreaterThanOrEqual(before);
  });

  test('tells of a worker that is killed, and that the picture went on where it was', async () => {
    const { page } = await browser.open(app);
    await write(page, 'a castle on orange', 150);
    await send(page);
    await until(async () => (/Drawing \d\d/.test(await text(page, 'status')) ? true : null));
    const steps: number[] = [];
    process.kill(await product.pidOf('inference'), 'SIGKILL');
    await until(async () => (/goes on at step \d+|Loading|starting/.test(await text(page, 'status')) ? true : null));
    expect(await page.getByRole('button', { name: 'Send', exact: true }).getAttribute('aria-disabled')).toBeNull();
    await until(async () => {
      const step = /Drawing (\d+)\//.exec(await text(page, 'status'))?.[1];
      if (step) steps.push(Number(step));
      return (await newest()).status === 'done' ? true : null;
    });
    expect(steps).toEqual(steps.toSorted((a, b) => a - b));
    await until(async () => (/Went on at step \d+ after attempt 1/.test(await text(page, 'resumed')) ? true : null));
  });

  test('sends what was written while the API is away, once', async () => {
    const { page } = await browser.open(app);
    const count = async () =>
      ((await product.call('/api/v1/jobs?limit=100')).json as unknown as { jobs: unknown[] }).jobs.length;
    const before = await count();
    const api = await product.pidOf('api');
    process.kill(api, 'SIGSTOP');
    await write(page, 'a star on blue', 3);
    await send(page);
    process.kill(api, 'SIGKILL');
    // The new API may be about to listen.
    await until(() =>
      count().then(
        (now) => (now > before ? true : null),
        () => null,
      ),
    );
    await page.locator('[role=alert]').waitFor({ state: 'detached' });
    await product.ended((await newest()).id);
    expect(await count()).toBe(before + 1);
  });

  test('keeps what a full queue does not take, and says why', async () => {
    const { page } = await browser.open(app);
    await page.route('**/api/v1/jobs', (route) =>
      route.request().method() === 'POST'
        ? route.fulfill({
            status: 429,
            headers: { 'retry-after': '40' },
            json: { error: { code: 'QUEUE_FULL', message: '1000 jobs are waiting', hint: 'wait, or cancel some' } },
          })
        : route.continue(),
    );
    await write(page, 'a rose', 3);
    await send(page);
    const problem = page.getByRole('alert').filter({ hasText: 'Not sent yet' });
    expect(await problem.textContent()).toMatch(
      /a rose.*1000 jobs are waiting.*wait, or cancel some.*Room in about 40 s/s,
    );
    await page.unroute('**/api/v1/jobs');
    await page.getByRole('button', { name: 'Try again' }).click();
    await problem.waitFor({ state: 'detached' });
    expect(await newest()).toMatchObject({ prompt: 'a rose' });
  });

  test('cancels on the preview, and that is no failure', async () => {
    const { page } = await browser.open(app);
    await write(page, 'a rocket on black', 900);
    await send(page);
    await page.getByTestId('running').waitFor();
    await page.getByRole('button', { name: 'Cancel', exact: true }).click();
    await page.getByTestId('running').waitFor({ state: 'detached' });
    expect(await newest()).toMatchObject({ status: 'cancelled' });
    expect(await page.locator('.problem').count()).toBe(0);
  });

  test('restores the settings of a PNG that is chosen by drop, and draws over one that has none', async () => {
    const made = await product.ended(
      (await product.submit({ prompt: 'a panda on yellow', seed: 77, numInferenceSteps: 7, width: 176, height: 96 }))
        .id,
    );
    const { page } = await browser.open(app);
    const png = readFileSync(join(product.dataDir, 'images', `${made.id}.png`));
    await drop(page, png, 'picture.png');
    await until(async () => ((await page.inputValue('#prompt')) === 'a panda on yellow' ? true : null));
    expect(await page.getByLabel('Seed', { exact: true }).inputValue()).toBe('77');
    expect(await page.getByLabel('Width').inputValue()).toBe('176');
    const plain = join(temporaryFolder(), 'plain.png');
    writeFileSync(
      plain,
      Buffer.from(await (await product.fetch(`/api/v1/images/${made.id}?format=webp`)).arrayBuffer()),
    );
    await page.setInputFiles('input[type=file]', {
      name: 'plain.webp',
      mimeType: 'image/webp',
      buffer: readFileSync(plain),
    });
    await page.getByAltText('The one that is drawn over').waitFor();
    await page.getByLabel(/How much is drawn anew/).fill('0.5');
    await send(page);
    const job = await until(async () => ((await newest()).initImage ? await newest() : null));
    expect(job).toMatchObject({ strength: 0.5, prompt: 'a panda on yellow' });
  });

  test('refuses a file that is no picture in words, and goes on', async () => {
    const { page } = await browser.open(app);
    await drop(page, Buffer.from('not a picture'), 'notes.txt', 'text/plain');
    await page.getByText('notes.txt is no picture that can be drawn over').waitFor();
  });

  test('shows hostile text as text', async () => {
    const prompt = '<img src=x onerror=alert(1)><script>alert(2)</script> \u202Eevil\u2066 \u{1F98A}';
    await product.ended((await product.submit({ prompt, numInferenceSteps: 2 })).id);
    const { page } = await browser.open(app);
    await page.locator('.caption .prompt').filter({ hasText: '<script>alert(2)</script>' }).waitFor();
    expect(await page.locator('img[src=x]').count()).toBe(0);
  });

  test('sends nothing while a word is composed', async () => {
    const { page } = await browser.open(app);
    await write(page, '狐狸');
    const before = (await newest()).id;
    await page
      .locator('#prompt')
      .evaluate((field) =>
        field.dispatchEvent(
          new KeyboardEvent('keydown', { key: 'Enter', ctrlKey: true, isComposing: true, bubbles: true }),
        ),
      );
    await page.press('#prompt', 'Enter');
    expect((await newest()).id).toBe(before);
  });

  /** As a file manager would. */
  async function drop(page: Page, bytes: Buffer, name: string, type = 'image/png'): Promise<void> {
    const transfer = await page.evaluateHandle(
      ({ base64, name, type }) => {
        const data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], name, { type }));
        return data;
      },
      { base64: bytes.toString('base64'), name, type },
    );
    await page.dispatchEvent('main', 'drop', { dataTransfer: transfer });
  }
});
