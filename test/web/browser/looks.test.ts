/** Every screen, in light and dark, from a small phone to a wide screen: readable, reachable, and nothing cut off. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Product, startProduct, until } from '../../system/product';
import { browserForTests, hasBrowser } from './browser';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const WIDTHS = [320, 375, 768, 1280, 1920, 3840];

describe.skipIf(!hasBrowser())('every screen', () => {
  const browser = browserForTests();
  let product: Product;
  let drawn: string;
  beforeAll(async () => {
    product = await startProduct();
    const { id } = await product.submit({ prompt: 'a fox on a teal background', numInferenceSteps: 4 });
    await product.ended(id);
    drawn = id;
    await product.submit({ prompt: 'x'.repeat(3000), numInferenceSteps: 1000, width: 512, height: 512 });
    const jobs = ['a cat', 'b', 'c'].map((prompt) => ({ prompt, numInferenceSteps: 5 }));
    await product.call('/api/v1/groups', { jobs });
    await product.submit({ prompt: `${'wide '.repeat(500)}${'W'.repeat(500)}`, numInferenceSteps: 5 });
    process.kill(await product.pidOf('inference'), 'SIGKILL');
    await until(async () => ((await product.status()).queue.running === 1 ? true : null));
  });
  afterAll(() => product.clean());

  const screens = (): [name: string, path: string, ready: string][] => [
    ['create', '', '#prompt'],
    ['queue', 'queue', '[data-testid=queued]'],
    ['gallery', 'gallery', '[role=gridcell]'],
    ['a large picture', `gallery/${drawn}`, '.details'],
    ['system', 'system', '.tree'],
  ];
  async function eachScreen(page: Page, look: (name: string) => Promise<void>): Promise<void> {
    for (const [name, path, ready] of screens()) {
      await page.goto(`${product.url}/app/${path}`);
      await page.locator(ready).first().waitFor();
      await look(name);
    }
    await page.goto(`${product.url}/app/`);
    for (const [name, keys] of [
      ['keys', '?'],
      ['commands', 'Control+k'],
    ] as const) {
      await page.locator('#prompt').waitFor();
      await page.locator('body').click({ position: { x: 2, y: 300 } });
      await page.keyboard.press(keys);
      await page.getByRole('dialog').waitFor();
      await look(name);
      await page.keyboard.press('Escape');
      await page.getByRole('dialog').waitFor({ state: 'detached' });
    }
  }

  test.each(['light', 'dark'] as const)(
    'in %s has no fault that axe knows, on a phone and on a laptop',
    async (colorScheme) => {
      const found: string[] = [];
      for (const viewport of [
        { width: 390, height: 844 },
        { width: 1280, height: 800 },
      ]) {
        const { page } = await browser.open(`${product.url}/app/`, { viewport, colorScheme, reducedMotion: 'reduce' });
        await eachScreen(page, async (name) => {
          // Through the protocol of the browser: the page itself lets no script in.
          await page.evaluate(AXE);
          const violations = await page.evaluate(async () => {
            const { axe } = window as unknown as { axe: { run(): Promise<{ violations: Violation[] }> } };
            interface Violation {
              id: string;
              nodes: { target: string[]; failureSummary: string }[];
            }
            const { violations } = await axe.run();
            return violations.map(
              ({ id, nodes }) =>
                `${id}: ${nodes.map(({ target, failureSummary }) => `${target} ${failureSummary}`).join(' | ')}`,
            );
          });
          found.push(...violations.map((violation) => `${name}, ${viewport.width}: ${violation}`));
        });
      }
      expect(found).toEqual([]);
    },
  );

  test.each([
    [100, WIDTHS],
    [200, [375, 1280]],
  ])('with text of %d %% nothing is beside the window', async (percent, widths) => {
    const { page } = await browser.open(`${product.url}/app/`);
    const wide: string[] = [];
    for (const width of widths) {
      await page.setViewportSize({ width, height: 800 });
      await eachScreen(page, async (name) => {
        await page.evaluate((size) => {
          document.documentElement.style.fontSize = size;
        }, `${percent}%`);
        const over = await page.evaluate(() => {
          const { scrollWidth, clientWidth } = document.documentElement;
          const beside = [...document.querySelectorAll('main *')].filter((element) => {
            const { right, width } = element.getBoundingClientRect();
            return (
              width > 0 && right > clientWidth + 1 && !element.closest('.recent, .scroller, .lines, .visually-hidden')
            );
          });
          return scrollWidth > clientWidth || beside.length > 0
            ? beside.slice(0, 3).map(({ className }) => String(className))
            : null;
        });
        if (over) wide.push(`${name} at ${width}: ${over}`);
      });
    }
    expect(wide).toEqual([]);
  });

  test('where the system has its own colours, it is still told what is chosen and how far something is', async () => {
    const { page } = await browser.open(`${product.url}/app/`, { forcedColors: 'active' });
    const outline = (element: Element) => getComputedStyle(element).outlineStyle;
    const pages = page.getByRole('navigation').first();
    expect(await pages.getByRole('link', { name: 'Create' }).evaluate(outline)).toBe('solid');
    expect(await pages.getByRole('link', { name: 'Queue' }).evaluate(outline)).toBe('none');
    expect(await page.locator('label', { hasText: /^1:1$/ }).evaluate(outline)).toBe('solid');
    const bar = page.getByRole('progressbar').first();
    expect(await bar.evaluate((element) => getComputedStyle(element).borderStyle)).toBe('solid');
  });

  test('what is touched is large enough for a finger', async () => {
    const { page } = await browser.open(`${product.url}/app/`, {
      viewport: { width: 390, height: 844 },
      hasTouch: true,
      isMobile: true,
    });
    const small: string[] = [];
    await eachScreen(page, async (name) => {
      const found = await page.evaluate(() =>
        [...document.querySelectorAll('main button, nav a, main input:not([type=file]), main select')]
          .map((element) => ({
            element,
            box: (element.closest('label.chip, label.row') ?? element).getBoundingClientRect(),
          }))
          .filter(({ box }) => box.height > 0 && box.height < 43.5)
          .map(
            ({ element, box }) =>
              `${element.textContent || element.getAttribute('aria-label') || element.className}: ${box.height}`,
          ),
      );
      small.push(...found.map((one) => `${name}: ${one}`));
    });
    expect(small).toEqual([]);
  });
});
