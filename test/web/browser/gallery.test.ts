/** Ten thousand pictures, and what a person does with them. */
import { copyFileSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openDatabase } from '@qwen-supervisor/supervisor/jobs/sqlite-database';
import { sqliteJobStore } from '@qwen-supervisor/supervisor/jobs/sqlite-job-store';
import type { Page } from 'playwright-core';
import sharp from 'sharp';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Product, startProduct, until } from '../../system/product';
import { browserForTests, hasBrowser } from './browser';

const MANY = 10_000;
const DAY_MS = 86_400_000;

/** A data folder as years of drawing leave it: a hundred files stand for all of them. */
async function manyPictures(): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'qwen-supervisor-test-'));
  mkdirSync(join(folder, 'images'), { mode: 0o700 });
  const db = openDatabase(join(folder, 'jobs.db'));
  const insert =
    db.prepare(`INSERT INTO jobs (id, status, request, step, attempts, image, created_at, finished_at, rank, work, model)
    VALUES (?, 'done', ?, 20, 1, ?, ?, ?, ?, 1, ?)`);
  const first = Date.parse('2026-01-01T12:00:00Z');
  db.exec('BEGIN');
  for (let i = 0; i < MANY; i++) {
    const id = `job_${i.toString(16).padStart(24, '0')}`;
    const [width, height] = [
      [1328, 1328],
      [1664, 928],
      [928, 1664],
    ][i % 3] as [number, number];
    const request = {
      prompt: `picture ${i} of a ${i % 2 ? 'fox' : 'cat'}`,
      negativePrompt: ' ',
      width,
      height,
      numInferenceSteps: 20,
      trueCfgScale: 4,
      seed: i,
    };
    const at = new Date(first + Math.floor(i / 50) * DAY_MS + (i % 50) * 1000).toISOString();
    const image = { id, file: `images/${id}.png`, sha256: i.toString(16).padStart(64, '0'), bytes: 100 };
    insert.run(id, JSON.stringify(request), JSON.stringify(image), at, at, i + 1, i % 5 ? 'qwen-image' : 'pocket');
  }
  db.exec('COMMIT');
  await sqliteJobStore(db).close();
  const png = await sharp({ create: { width: 64, height: 64, channels: 3, background: 'teal' } })
    .png()
    .toBuffer();
  const webp = await sharp(png).webp().toBuffer();
  const [file, thumbnail] = [join(folder, 'one.png'), join(folder, 'one.webp')];
  writeFileSync(file, png);
  writeFileSync(thumbnail, webp);
  for (let i = MANY - 100; i < MANY; i++) {
    const name = join(folder, 'images', `job_${i.toString(16).padStart(24, '0')}`);
    copyFileSync(file, `${name}.png`);
    for (const made of ['.thumbnail.webp', '.thumbnail-512.webp']) copyFileSync(thumbnail, name + made);
  }
  return folder;
}

describe.skipIf(!hasBrowser())('the gallery', () => {
  const browser = browserForTests();
  let product: Product;
  beforeAll(async () => {
    product = await startProduct([], await manyPictures());
    await product.ready();
  });
  afterAll(() => product.clean());

  let page: Page;
  beforeEach(async () => {
    ({ page } = await browser.open(`${product.url}/app/gallery`));
    await cells().first().waitFor();
  });
  const cells = () => page.getByRole('gridcell');
  const idOf = (number: number) => `job_${number.toString(16).padStart(24, '0')}`;
  const link = (number: number) => page.locator(`#picture-${idOf(number)}`);
  const focused = () => page.evaluate(() => document.activeElement?.id.replace('picture-', '') ?? '');
  const job = (number: number) => product.job(idOf(number)) as Promise<{ starred: boolean; trashedAt: string | null }>;

  test('has all of ten thousand pictures one scroll away, and few of them in the document', async () => {
    await page.getByText('10000 pictures', { exact: true }).waitFor();
    const heights = await page
      .locator('.scroller')
      .evaluate(({ scrollHeight, clientHeight }) => [scrollHeight, clientHeight]);
    expect((heights[0] as number) / (heights[1] as number)).toBeGreaterThan(200);
    for (const share of [0.5, 1, 0.25]) {
      await page
        .locator('.scroller')
        .evaluate((element, share) => element.scrollTo(0, element.scrollHeight * share), share);
      await cells().first().waitFor();
      expect(await page.locator('.scroller *').count()).toBeLessThan(400);
    }
    await page.locator('.scroller').evaluate((element) => element.scrollTo(0, element.scrollHeight));
    await link(0).waitFor();
    await page.getByRole('navigation', { name: 'Days' }).getByRole('button').first().click();
    await link(MANY - 1).waitFor();
  });

  test('is walked by keys from end to end, and a picture opens and closes where one was', async () => {
    await link(MANY - 1).focus();
    await page.keyboard.press('ArrowRight');
    await until(async () => ((await focused()) === idOf(MANY - 2) ? true : null));
    await page.keyboard.press('End');
    await until(async () => ((await focused()) === idOf(0) ? true : null));
    await page.keyboard.press('Home');
    await until(async () => ((await focused()) === idOf(MANY - 1) ? true : null));
    for (let i = 0; i < 3; i++) await page.keyboard.press('PageDown');
    const there = await until(async () => ((await focused()) === idOf(MANY - 1) ? null : await focused()));
    await page.keyboard.press('Enter');
    await page.getByRole('region', { name: 'Details' }).waitFor();
    expect(new URL(page.url()).pathname).toBe(`/app/gallery/${there}`);
    await page.keyboard.press('Escape');
    await cells().first().waitFor();
    expect(await page.locator(`#picture-${there}`).getAttribute('tabindex')).toBe('0');
  });

  test('finds by words, stars and size, and says how many', async () => {
    await page.getByRole('searchbox').fill('FOX 9998');
    await page.getByText('Nothing for “FOX 9998”.').waitFor();
    await page.getByRole('searchbox').fill('cat 9998');
    await page.getByText('1 picture', { exact: true }).waitFor();
    await page.getByRole('searchbox').fill('');
    await page.getByLabel('Size').selectOption('1664x928');
    await page.getByText('3333 pictures', { exact: true }).waitFor();
    await page.getByLabel('Size').selectOption('');
    await page.getByLabel('Model').selectOption('pocket');
    await page.getByText('2000 pictures', { exact: true }).waitFor();
  });

  test('a star moves nothing, and is seen in another browser', async () => {
    const { page: other } = await browser.open(`${product.url}/app/gallery`);
    await link(MANY - 5).focus();
    const before = await page.locator('.scroller').evaluate(({ scrollTop }) => scrollTop);
    await page.keyboard.press('f');
    await until(async () => ((await job(MANY - 5)).starred ? true : null));
    await other.locator(`#picture-${idOf(MANY - 5)} .mark`).waitFor();
    expect(await page.locator('.scroller').evaluate(({ scrollTop }) => scrollTop)).toBe(before);
    expect(await focused()).toBe(idOf(MANY - 5));
    await page.getByRole('button', { name: 'Only starred' }).click();
    await page.getByText('1 picture', { exact: true }).waitFor();
  });

  test('five thrown away in a row: the focus is on the next, and each comes back by undo', async () => {
    await link(MANY - 10).focus();
    for (let i = 0; i < 5; i++) {
      await page.keyboard.press('Delete');
      await until(async () => ((await focused()) === idOf(MANY - 11 - i) ? true : null));
    }
    expect((await job(MANY - 14)).trashedAt).not.toBeNull();
    await page.keyboard.press('Control+z');
    await link(MANY - 14).waitFor();
    expect(await job(MANY - 14)).toMatchObject({ trashedAt: null });
    await page.getByRole('button', { name: 'Trash', exact: true }).click();
    await page.getByText('4 pictures', { exact: true }).waitFor();
    await link(MANY - 10).focus();
    await page.keyboard.press('Space');
    await page.getByRole('button', { name: 'Take back' }).click();
    await page.getByText('3 pictures', { exact: true }).waitFor();
    await page.getByRole('button', { name: 'Empty the trash' }).click();
    await page.getByRole('button', { name: 'Remove 3 pictures' }).click();
    await page.getByText('The trash is empty.').waitFor();
    expect(await job(MANY - 13)).toMatchObject({ error: { code: 'JOB_NOT_FOUND' } });
    expect(await job(MANY - 10)).toMatchObject({ trashedAt: null });
  });

  test('several are selected with Shift, and starred together', async () => {
    await link(MANY - 40).focus();
    await page.keyboard.press('Space');
    await page.keyboard.press('Shift+ArrowRight');
    await page.keyboard.press('Shift+ArrowRight');
    await page.getByText('3 pictures selected').waitFor();
    await page.getByRole('toolbar').getByRole('button', { name: 'Star' }).click();
    await until(async () => ((await job(MANY - 42)).starred ? true : null));
  });

  test('the large picture: settings with and without seed, same again, as input, and into the trash', async () => {
    const open = () => page.goto(`${product.url}/app/gallery/${idOf(MANY - 60)}`);
    const form = async () => [
      await page.inputValue('#prompt'),
      await page.getByLabel('Seed', { exact: true }).inputValue(),
    ];
    await open();
    await page.getByRole('button', { name: 'Use settings', exact: true }).click();
    await page.locator('#prompt').waitFor();
    const [prompt, seed] = await form();
    expect(prompt).toBe(`picture ${MANY - 60} of a cat`);
    expect(seed).not.toBe(String(MANY - 60));
    await open();
    await page.getByRole('region', { name: 'Details' }).waitFor();
    await page.keyboard.press('Shift+U');
    await page.locator('#prompt').waitFor();
    expect(await form()).toEqual([`picture ${MANY - 60} of a cat`, String(MANY - 60)]);
    await open();
    await page.getByRole('button', { name: 'Draw over it' }).click();
    await page.getByAltText('The one that is drawn over').waitFor();
    await open();
    // The list is there.
    await page.locator('button:not([aria-disabled])').filter({ hasText: 'Next' }).waitFor();
    await page.getByRole('button', { name: 'Into the trash' }).click();
    await until(async () => ((await job(MANY - 60)).trashedAt === null ? null : true));
    await page.waitForURL(`**/app/gallery/${idOf(MANY - 61)}`);
  });

  test('a picture that is drawn meanwhile appears by itself, first', async () => {
    const { id } = await product.submit({ prompt: 'a new one', numInferenceSteps: 2 });
    await page.locator(`#picture-${id}`).waitFor();
    expect(await cells().first().locator('a').getAttribute('id')).toBe(`picture-${id}`);
    await product.ended(id);
  });

  test('what happens while one is elsewhere is there on the way back', async () => {
    await page.getByRole('link', { name: 'System' }).click();
    await page.locator('.tree').waitFor();
    const { id } = await product.submit({ prompt: 'while I was away', numInferenceSteps: 2 });
    await product.ended(id);
    await page.getByRole('link', { name: 'Gallery' }).click();
    await page.locator(`#picture-${id}`).waitFor();
  });

  test('what was thrown away is selected no more, so that the next Delete takes the next picture', async () => {
    await link(MANY - 32).focus();
    await page.keyboard.press('Space');
    await page.keyboard.press('Delete');
    await page.getByText('1 picture in the trash.').waitFor();
    await page.getByText('selected').waitFor({ state: 'detached' });
    await link(MANY - 34).focus();
    await page.keyboard.press('Delete');
    await until(async () => ((await job(MANY - 34)).trashedAt === null ? null : true));
  });

  test('a thousand and more are starred in one go', async () => {
    await cells().first().locator('a').focus();
    await page.keyboard.press('Control+a');
    await page.getByText(/^\d{4,5} pictures selected$/).waitFor();
    await page.getByRole('toolbar').getByRole('button', { name: 'Star' }).click();
    await until(async () => ((await job(0)).starred ? true : null));
  });

  test('back from a picture the focus is on it', async () => {
    await link(MANY - 20).focus();
    await page.keyboard.press('Enter');
    await page.getByRole('region', { name: 'Details' }).waitFor();
    for (let i = 0; i < 3; i++) {
      const before = page.url();
      await page.keyboard.press('ArrowRight');
      await page.waitForURL((url) => url.href !== before);
    }
    await page.getByRole('region', { name: 'Details' }).waitFor();
    await page.keyboard.press('Escape');
    await until(async () => ((await focused()) === idOf(MANY - 23) ? true : null));
  });
});
