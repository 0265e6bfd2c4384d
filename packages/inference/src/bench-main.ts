/**
 * Entry of `qwen-supervisor bench --probe`, a process of its own: one block of Qwen-Image's width on a device, at the
 * sequence lengths of its pictures. Prints a line as each is done, or one JSON object.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ERRORS, toCodedError } from '@qwen-supervisor/protocol/errors';
import { harmless } from '@qwen-supervisor/protocol/harmless-text';
import { keepProbe } from './kept-probes.js';
import { requireRuntimeLibraries } from './runtime-libraries.js';

/** What is asked for. */
export interface BenchCommand {
  /** As `cpu`, `cuda:0`. */
  device: string;
  /** As its maker calls it. */
  name: string;
  driver: string | null;
  threads: number;
  /** Sides of the pictures, pixels. */
  sides: number[];
  json: boolean;
  dataDir: string;
}

const command = JSON.parse(process.argv[2] ?? '{}') as BenchCommand;
const folder = mkdtempSync(join(tmpdir(), 'qwen-supervisor-bench-'));
try {
  await requireRuntimeLibraries();
  const { probeBlock } = await import('./probe-block.js');
  const say = (line: string) => command.json || console.log(harmless(line));
  const { fromRuntime } = await import('./recipe/runtime-error.js');
  const report = await probeBlock(command, folder, say).catch((error: unknown) => {
    throw fromRuntime(error, 'INFERENCE_FAILED', `the probe of ${command.device}`);
  });
  if (command.json) console.log(JSON.stringify(report));
  await keepProbe(command.dataDir, report).catch((error: Error) => {
    // It was measured, and printed, all the same.
    console.error(harmless(`note: not kept for 'model plan': ${error.message}`));
  });
} catch (error) {
  const coded = toCodedError(error);
  console.error(harmless(`error ${coded.code}: ${coded.message}\nhint: ${coded.hint}`));
  process.exitCode = ERRORS[coded.code].exit;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
// Some drivers do not let their threads go.
process.exit();
