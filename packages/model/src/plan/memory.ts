/**
 * The memory that this process and its children may take: what the kernel says is available, within the limits of the
 * control groups around us (containers, systemd's MemoryMax). The machine's label says nothing.
 *
 * Sources: `/proc/meminfo`; cgroup v2 `memory.max`, `memory.high`, `memory.current`, `memory.stat`; cgroup v1
 * `memory.limit_in_bytes`, `memory.usage_in_bytes`, `memory.stat`.
 */
import { freemem, totalmem } from 'node:os';
import { join } from 'node:path';
import { controlGroups } from '@qwen-supervisor/files/control-groups';
import { readKernelFile } from '@qwen-supervisor/files/kernel-file';

const V2 = {
  version: 2,
  limits: ['memory.max', 'memory.high'],
  usage: 'memory.current',
  cache: '(?:in)?active_file',
} as const;
const V1 = {
  version: 1,
  limits: ['memory.limit_in_bytes'],
  usage: 'memory.usage_in_bytes',
  cache: 'total_(?:in)?active_file',
} as const;

/** Bytes; `root` is where `/proc` and `/sys` lie. */
export function availableMemory(root = '/'): number {
  const kilobytes = /^MemAvailable:\s+(\d+) kB$/m.exec(readKernelFile(join(root, 'proc/meminfo')))?.[1];
  // Elsewhere pages of files are not counted as free.
  const ofMachine = kilobytes === undefined ? Math.max(freemem(), totalmem() / 2) : Number(kilobytes) * 1024;
  return Math.min(ofMachine, ...[V2, V1].flatMap((version) => roomOf(root, version)));
}

/** What is left in our group and in each around it. */
function roomOf(root: string, { version, limits, usage, cache }: typeof V2 | typeof V1): number[] {
  return controlGroups({ version, controller: 'memory' }, root).flatMap((group) => {
    const number = (file: string) => Number(readKernelFile(join(group, file)).trim() || Number.NaN);
    // Pages of files count as used, and go when somebody needs their place.
    const stat = readKernelFile(join(group, 'memory.stat'));
    const cached = [...stat.matchAll(new RegExp(`^${cache} (\\d+)$`, 'gm'))];
    // One that is not there, or 'max', is no number.
    const limit = Math.min(...limits.map(number).filter((bytes) => !Number.isNaN(bytes)));
    const room = limit - number(usage) + cached.reduce((sum, [, bytes]) => sum + Number(bytes), 0);
    return Number.isFinite(room) ? [Math.max(0, room)] : [];
  });
}
