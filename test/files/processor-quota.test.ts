/** What a control group lets be used of the processors, in a `/proc` and `/sys` of our own. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { processorQuota } from '@qwen-supervisor/files/processor-quota';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../fixture-files.js';

test('the quota is the least of the control groups around, of either version', () => {
  const root = temporaryFolder();
  const write = (file: string, text: string) => {
    mkdirSync(dirname(join(root, file)), { recursive: true });
    writeFileSync(join(root, file), text);
  };
  expect(processorQuota(root)).toBeNull();
  write('proc/self/cgroup', '0::/user/app\n');
  write('sys/fs/cgroup/user/app/cpu.max', 'max 100000\n');
  expect(processorQuota(root)).toBeNull();
  write('sys/fs/cgroup/user/cpu.max', '150000 100000\n');
  expect(processorQuota(root)).toBe(1.5);
  write('proc/self/cgroup', '4:cpu,cpuacct:/box\n');
  write('sys/fs/cgroup/cpu/box/cpu.cfs_quota_us', '-1\n');
  write('sys/fs/cgroup/cpu/box/cpu.cfs_period_us', '100000\n');
  expect(processorQuota(root)).toBeNull();
  write('sys/fs/cgroup/cpu/cpu.cfs_quota_us', '50000\n');
  write('sys/fs/cgroup/cpu/cpu.cfs_period_us', '100000\n');
  expect(processorQuota(root)).toBe(0.5);
});
