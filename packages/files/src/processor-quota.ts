/** How much of the processors a control group lets its processes use. */
import { join } from 'node:path';
import { controlGroups } from './control-groups.js';
import { readKernelFile } from './kernel-file.js';

/**
 * Processors' worth of time, `0.5` for half of one: the least of the group's own and of those around it; null without a
 * bound. `root` is where `/proc` and `/sys` lie. Reference: cgroup-v2, "cpu.max"; in version 1 "cpu.cfs_quota_us".
 */
export function processorQuota(root = '/'): number | null {
  const unified = controlGroups({ version: 2, controller: 'cpu' }, root).map((group) => {
    // `max 100000` without a bound.
    const [, time, period] = /^(\d+) (\d+)/.exec(readKernelFile(join(group, 'cpu.max'))) ?? [];
    return Number(time) / Number(period);
  });
  const divided = controlGroups({ version: 1, controller: 'cpu' }, root).map((group) => {
    const [time, period] = ['quota', 'period'].map((name) => Number(readKernelFile(join(group, `cpu.cfs_${name}_us`))));
    // -1 without a bound.
    return Number(time) / Number(period);
  });
  const bounds = [...unified, ...divided].filter((bound) => bound > 0 && Number.isFinite(bound));
  return bounds.length === 0 ? null : Math.min(...bounds);
}
