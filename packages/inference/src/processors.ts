/** What computes: which processors, and as many threads as this process may really use of them. */
import { arch, availableParallelism, cpus } from 'node:os';
import { readKernelFile } from '@qwen-supervisor/files/kernel-file';

/** Which kind of processor: another may round otherwise. */
export function processorName(): string {
  return `${arch()}, ${cpus()[0]?.model ?? ''}`;
}

/** `wanted`: what the operator has set; 0 for as many as there are, which `sharers` workers have between them. */
export function threadCount(wanted: number, sharers = 1): number {
  const possible = [availableParallelism(), quota(), cores()].filter((count) => count !== null);
  // Two threads on one core, or on a share of one, take turns.
  return wanted > 0 ? wanted : Math.max(1, Math.floor(Math.min(...possible) / sharers));
}

/** Processors' worth of time that the control group has; null without a bound. Reference: cgroup-v2, "cpu.max". */
function quota(): number | null {
  const groups = readKernelFile('/proc/self/cgroup');
  const pathOf = (pattern: RegExp) => pattern.exec(groups)?.[1] ?? '/';
  // Within a container its own group is the root of what it sees.
  for (const path of [pathOf(/^0::(.*)$/m), '/']) {
    const [, time, period] = /^(\d+) (\d+)/.exec(readKernelFile(`/sys/fs/cgroup${path}/cpu.max`)) ?? [];
    if (time && period) return Math.ceil(Number(time) / Number(period));
  }
  for (const path of [pathOf(/^\d+:(?:\w+,)*cpu(?:,\w+)*:(.*)$/m), '/']) {
    const [time, period] = ['quota', 'period'].map((name) =>
      Number(readKernelFile(`/sys/fs/cgroup/cpu${path}/cpu.cfs_${name}_us`)),
    );
    if (time && period && time > 0) return Math.ceil(time / period);
  }
  return null;
}

/** Without those that are two of one core; null where the system does not tell. */
function cores(): number | null {
  const places = readKernelFile('/proc/cpuinfo')
    .split('\n\n')
    .map((processor) => /^physical id\s*: (\d+)[\s\S]*^core id\s*: (\d+)/m.exec(processor))
    .flatMap((found) => (found ? [`${found[1]} ${found[2]}`] : []));
  return places.length > 0 ? new Set(places).size : null;
}
