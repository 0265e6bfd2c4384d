/**
 * What this process measures of itself; readable from the control thread while the main thread is inside a native
 * call.
 */
import { readFileSync } from 'node:fs';
import type { Vitals } from '@qwen-supervisor/protocol/status';

export function measureVitals(step: number): Vitals {
  const { user, system } = process.cpuUsage();
  return { rssBytes: process.memoryUsage.rss(), readBytes: readBytes(), cpuSeconds: (user + system) / 1e6, step };
}

/** Bytes that the kernel fetched from disks for us, mapped files included; 0 where it does not tell. */
function readBytes(): number {
  try {
    return Number(/^read_bytes: (\d+)$/m.exec(readFileSync('/proc/self/io', 'utf8'))?.[1] ?? 0);
  } catch (error) {
    if (['ENOENT', 'EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) return 0;
    throw error;
  }
}
