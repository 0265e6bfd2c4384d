/** What a browser fetches before it can show anything. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { REPOSITORY } from '../../fixture-files';

test('JavaScript and CSS of the page are below 150 kB, packed', () => {
  const folder = join(REPOSITORY, 'packages/web/dist/assets');
  const files = readdirSync(folder).filter((name) => name.endsWith('.gz'));
  expect(files.length).toBeGreaterThan(1);
  const bytes = files.map((name) => statSync(join(folder, name)).size).reduce((sum, size) => sum + size);
  expect(bytes).toBeLessThan(150_000);
});
