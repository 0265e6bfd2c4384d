import { defineConfig } from 'vitest/config';

/** Tests read the sources: no build is needed, and a failure names the line that was written. */
const conditions = ['source', 'node'];
/** Whole networks, pictures of megabytes over real connections, and a real PostgreSQL. */
const LONG = [
  'test/inference/recipe/golden.test.ts',
  'test/api/event-stream.test.ts',
  'test/supervisor/jobs/*-store*.test.ts',
];
/** Minutes of networks in processes of their own: what they compute is ONNX Runtime's, under whatever Node. */
const NETWORKS = ['test/inference/recipe/webgpu.test.ts', 'test/inference/recipe/parts.test.ts'];
/** The page in a real browser, served by the whole system. */
const BROWSER = 'test/web/browser/*.test.ts';
const HISTORIES = 'test/supervisor/core/simulation.test.ts';

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    // Two cores are the least that we support, and the tests of the whole system use both; three at a time were slower.
    maxWorkers: 2,
    // Longer than any wait in them, on a machine that is busy with something else.
    testTimeout: 300_000,
    hookTimeout: 120_000,
    reporters: ['default', './test/count-reporter.ts'],
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/!(system|full-width)/**/*.test.ts'],
          exclude: [...LONG, BROWSER, ...(process.env.SHORT ? NETWORKS : [])],
          env: { HISTORIES: '10' },
        },
      },
      {
        extends: true,
        test: {
          name: 'system',
          include: ['test/system/**/*.test.ts', ...LONG, HISTORIES, BROWSER],
          globalSetup: 'test/debian-packages.ts',
        },
      },
      // Gigabytes and a quarter of an hour: only where it is asked for.
      ...(process.env.FULL_WIDTH
        ? [
            {
              extends: true as const,
              test: { name: 'full-width', include: ['test/full-width/*.test.ts'], testTimeout: 900_000 },
            },
          ]
        : []),
    ],
  },
});
