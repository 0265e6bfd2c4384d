/**
 * The memory that this process and its children may take: what the kernel says is available, within the limits of the
 * control groups around us (containers, systemd's MemoryMax). The machine's label says nothing.
 *
 * Sources: `/proc/meminfo`; cgroup v2 `memory.max`, `memory.high`, `memory.current`, `memory.stat`; cgroup v1
 * `memory.limit_in_bytes`, `memory.usage_in_bytes`, `memory.stat`.
 */
import { freemem, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { readKernelFile } from '@qwen-supervisor/files/kernel-file';

const V2 = {
  folder: 'sys/fs/cgroup',
  limits: ['memory.max', 'memory.high'],
  usage: 'memory.current',
  cache: '(?:in)?active_file',
};
const V1 = {
  folder: 'sys/fs/cgroup/memory',
  limits: ['memory.limit_in_bytes'],
  usage: 'memory.usage_in_bytes',
  cache: 'total_(?:in)?active_file',
};

/** Bytes; `root` is where `/proc` and `/sys` lie. */
export function availableMemory(root = '/'): number {
  const kilobytes = /^MemAvailable:\s+(\d+) kB$/m.exec(readKernelFile(join(root, 'proc/meminfo')))?.[1];
  // Elsewhere pages of files are not counted as free.
  const ofMachine = kilobytes === undefined ? Math.max(freemem(), totalmem() / 2) : Number(kilobytes) * 1024;
  const groups = readKernelFile(join(root, 'proc/self/cgroup')).split('\n');
  const v2 = groups.find((line) => line.startsWith('0::'))?.slice(3);
  const v1 = groups.find((line) => /^\d+:([\w,]+,)?memory(,[\w,]+)?:/.test(line))?.replace(/^\d+:[^:]*:/, '');
  const limits = [...roomOf(root, V2, v2), ...roomOf(root, V1, v1)];
  return Math.min(ofMachine, ...limits);
}

/** What is left in the group `path` and in each around it. */
function roomOf(root: string, { folder, limits, usage, cache }: typeof V2, path: string | undefined): number[] {
  if (path === undefined) return [];
  const rooms: number[] = [];
  for (let group = path; ; group = dirname(group)) {
    const number = (file: string) => Number(readKernelFile(join(root, folder, group, file)).trim() || Number.NaN);
    // Pages of files count as used, and go when somebody needs their place.
    const stat = readKernelFile(join(root, folder, group, 'memory.stat'));
    const cached = [...stat.matchAll(new RegExp(`^${cache} (\\d+)$`, 'gm'))];
    // One that is not there, or 'max', is no number.
    const limit = Math.min(...limits.map(number).filter((bytes) => !Number.isNaN(bytes)));
    const room = limit - number(usage) + cached.reduce((sum, [, bytes]) => sum + Number(bytes), 0);
    if (Number.isFinite(room)) rooms.push(Math.max(0, room));
    if (group === '/' || group === '.') return rooms;
  }
}
