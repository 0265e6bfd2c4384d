/**
 * How often the kernel has killed a process for want of memory, where we can see it. A child that ends by SIGKILL
 * while the count rises was killed by the kernel and not by an operator.
 *
 * Sources: cgroup v2 `memory.events`, cgroup v1 `memory.oom_control` (both count kills in the group by any kind of OOM
 * killer), else `/proc/vmstat`, which counts those of the whole machine.
 */
import { join } from 'node:path';
import { readKernelFile } from '@qwen-supervisor/files/kernel-file';

/** `root` is where `/proc` and `/sys` lie. Null where nothing is told. */
export function countOomKills(root = '/'): number | null {
  const groups = readKernelFile(join(root, 'proc/self/cgroup')).split('\n');
  const v2 = groups.find((line) => line.startsWith('0::'))?.slice(3) ?? '/';
  const v1 = groups.find((line) => /^\d+:([\w,]+,)?memory(,[\w,]+)?:/.test(line))?.replace(/^\d+:[^:]*:/, '') ?? '/';
  const files = [
    join(root, 'sys/fs/cgroup', v2, 'memory.events'),
    join(root, 'sys/fs/cgroup/memory', v1, 'memory.oom_control'),
    join(root, 'sys/fs/cgroup/memory/memory.oom_control'),
    join(root, 'proc/vmstat'),
  ];
  for (const file of files) {
    const match = /^oom_kill (\d+)$/m.exec(readKernelFile(file));
    if (match) return Number(match[1]);
  }
  return null;
}
