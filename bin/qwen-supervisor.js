#!/usr/bin/env node
// This file is committed as it is: npm links a bin at install time, before anything is built.
try {
  const { main } = await import('@qwen-supervisor/supervisor/cli/main');
  await main(process.argv.slice(2));
} catch (error) {
  if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error;
  // The program itself, or one of the packages that it needs. In an error of ours the table is not there to read.
  const [, missing = ''] = /^Cannot find (?:module|package) '([^']+)'/.exec(error.message) ?? [];
  const isOurs = /@qwen-supervisor[/\\]|packages[/\\]\w+[/\\]dist[/\\]/.test(missing);
  process.stderr.write(
    isOurs
      ? "error NOT_BUILT: the program has not been built\nhint: run 'npm ci && npm run build' in the repository first\n"
      : `error INSTALL_INCOMPLETE: the package ${missing} is missing\nhint: install the program again\n`,
  );
  process.exitCode = 70;
}
