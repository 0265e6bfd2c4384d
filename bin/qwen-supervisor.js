#!/usr/bin/env node
// The built program lies in packages/supervisor/dist. This file is committed as it is: npm links a bin at install time,
// before anything is built.
import { existsSync } from 'node:fs';

const program = new URL('../packages/supervisor/dist/cli/main.js', import.meta.url);
if (existsSync(program)) {
  const { main } = await import(program.href);
  await main(process.argv.slice(2));
} else {
  process.stderr.write(
    "error NOT_BUILT: the program has not been built\nhint: run 'npm run build' in the repository first\n",
  );
  process.exitCode = 70;
}
