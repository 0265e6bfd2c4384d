#!/usr/bin/env node
// This file is committed as it is: npm links a bin at install time, before anything is built.
try {
  const { main } = await import('@qwen-supervisor/supervisor/cli/main');
  await main(process.argv.slice(2));
} catch (error) {
  if (error.code !== 'ERR_MODULE_NOT_FOUND' || !/supervisor\/(dist\/cli\/main|supervisor')/.test(error.message))
    throw error;
  process.stderr.write(
    "error NOT_BUILT: the program has not been built\nhint: run 'npm ci && npm run build' in the repository first\n",
  );
  process.exitCode = 70;
}
