/**
 * The page in a real browser. Whatever a test looks at, the page asks nobody but its server, breaks none of the rules
 * that the server gives it, and has no error in its console.
 */
import { existsSync } from 'node:fs';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, expect } from 'vitest';
import { CHROMIUM } from '../../debian-packages';

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  // A name of the house: over plain http it is no secure context, as on a phone.
  '--host-resolver-rules=MAP house.test 127.0.0.1',
];

/** Whether there is a browser; in CI there must be. */
export function hasBrowser(): boolean {
  const isThere = existsSync(CHROMIUM);
  if (!isThere) expect(process.env.CI, 'Chromium cannot be had, and in CI it must be').not.toBe('true');
  return isThere;
}

export interface Opened {
  page: Page;
  /** Console errors that a test expects are taken out of here. */
  problems: string[];
}

/** Opens pages, and closes them after each test. `problems` are looked at then. */
export function browserForTests(): {
  open(url: string, options?: BrowserContextOptions): Promise<Opened>;
} {
  let browser: Browser;
  const opened: Opened[] = [];
  beforeAll(async () => {
    browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
  });
  afterEach(async () => {
    const problems = opened.splice(0).map(async ({ page, problems }) => {
      await page.context().close();
      return problems;
    });
    expect((await Promise.all(problems)).flat()).toEqual([]);
  });
  afterAll(() => browser?.close());
  return {
    async open(url, options = {}) {
      const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
      const page = await context.newPage();
      const one: Opened = { page, problems: [] };
      opened.push(one);
      page.setDefaultTimeout(Number(process.env.PATIENCE_MS ?? 60_000));
      const { origin } = new URL(url);
      page.on('request', (request) => {
        if (!request.url().startsWith(origin) && !/^(data|blob):/.test(request.url())) one.problems.push(request.url());
      });
      page.on('pageerror', (error) => one.problems.push(error.message));
      page.on('console', (message) => {
        // What the server refuses, or a server that is away, the browser notes by itself.
        const isNoted = /^Failed to load resource/.test(message.text());
        if (message.type() === 'error' && !isNoted) one.problems.push(message.text());
      });
      await page.goto(url);
      return one;
    },
  };
}
