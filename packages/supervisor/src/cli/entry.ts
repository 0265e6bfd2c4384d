/** Commands that run in a process of their own: the command line loads neither models nor ONNX Runtime. */
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { QUIET } from '../processes/spawn-child.js';

/** Its output is ours, and its exit code; it reports its errors itself. `env`: beyond ours. */
export async function runEntry(entry: string, args: string[], env: Record<string, string> = {}): Promise<void> {
  const path = fileURLToPath(import.meta.resolve(entry));
  const options = { stdio: 'inherit', env: { ...QUIET, ...env }, reject: false } as const;
  const { exitCode } = await execa(process.execPath, [path, ...args], options);
  process.exitCode = exitCode ?? 1;
}
