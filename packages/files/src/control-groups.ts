/** The control groups that this process is in. Reference: cgroups(7). */
import { dirname, join } from 'node:path';
import { readKernelFile } from './kernel-file.js';

/** Which version of control groups, and within it which controller. */
export interface Hierarchy {
  version: 1 | 2;
  controller: string;
}

/**
 * Folders of this process' own group and of each around it, its own first; none where the system has no such hierarchy.
 * `root` is where `/proc` and `/sys` lie.
 */
export function controlGroups({ version, controller }: Hierarchy, root = '/'): string[] {
  const own = version === 2 ? /^0::(.*)$/m : new RegExp(`^\\d+:(?:[\\w=]+,)*${controller}(?:,[\\w=]+)*:(.*)$`, 'm');
  const path = own.exec(readKernelFile(join(root, 'proc/self/cgroup')))?.[1];
  if (path === undefined) return [];
  const top = join(root, 'sys/fs/cgroup', version === 2 ? '' : controller);
  const folders: string[] = [];
  for (let group = path; ; group = dirname(group)) {
    folders.push(join(top, group));
    if (group === '/' || group === '.') return folders;
  }
}
