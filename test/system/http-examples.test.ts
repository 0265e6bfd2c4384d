/** What the page of the HTTP API says to type is typed, in its order, and what it says is printed is compared. */
import { execaSync } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Product, startProduct } from './product.js';
import { patternOf, typedIn } from './typed.js';

const hasCurl = execaSync('sh', ['-c', 'command -v curl'], { reject: false }).exitCode === 0;
const TYPED = typedIn('http-api.md');

let product: Product;
beforeAll(async () => {
  product = await startProduct();
  await product.ready();
});
afterAll(() => product.clean());

test('there is something to type', () => {
  expect(TYPED.length).toBeGreaterThan(5);
});

test.skipIf(!hasCurl).each(TYPED)('$command', ({ command, printed }) => {
  const here = (text: string) => text.replaceAll('localhost:8000', new URL(product.url).host);
  const { stdout } = execaSync('bash', ['-c', here(command)], { cwd: product.dataDir, timeout: 60_000 });
  expect(`${stdout}\n`).toMatch(patternOf(here(printed)));
});
