/**
 * What this process measures of itself; readable from the control thread while the main thread is inside a native
 * call.
 */
import { readFileSync } from 'node:fs';
import type { Vitals } from '@qwen-supervisor/protocol/status';

export function measureVitals(progress: Pick<Vitals, 'step' | 'stepShare' | 'work'>): Vitals {
  const { user, system } = process.cpuUsage();
  return { rssBytes: ownBytes(), readBytes: readBytes(), cpuSeconds: (user + system) / 1e6, ...progress };
}

/** Memory of this process alone: pages of files that it maps go when somebody else needs their place. */
function ownBytes(): number {
  const status = process.platform === 'linux' ? readFileSync('/proc/self/status', 'utf8') : '';
  const kilobytes = /^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1];
  return kilobytes === undefined ? process.memoryUsage.rss() : Number(kilobytes) * 1024;
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
