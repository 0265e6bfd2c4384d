import { defineConfig } from 'vitest/config';

/** Tests read the sources: no build is needed, and a failure names the line that was written. */
const conditions = ['source', 'node', 'import', 'module', 'default'];

export default defineConfig({
  test: {
    // Two cores are the least that we support; the tests of the whole system use both.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    reporters: ['default', './test/count-reporter.ts'],
    projects: [
      {
        resolve: { conditions },
        ssr: { resolve: { conditions } },
        test: { name: 'unit', include: ['test/!(system)/**/*.test.ts'] },
      },
      {
        resolve: { conditions },
        ssr: { resolve: { conditions } },
        test: { name: 'system', include: ['test/system/**/*.test.ts'] },
      },
    ],
  },
});
