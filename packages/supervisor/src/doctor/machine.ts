/** The machine: its memory and who holds it, its limits, its clock. */
import { join } from 'node:path';
import { controlGroups } from '@qwen-supervisor/files/control-groups';
import { listKernelFolder, readKernelFile } from '@qwen-supervisor/files/kernel-file';
import { type Finding, fail, gigabytes, pass, warn } from './finding.js';

/** Without room for this much the system around it suffers. */
const MEMORY_LOW = 2e9;
const HOLDERS = 3;
/** With less the API waits for the worker that draws. */
const PROCESSORS_MIN = 2;

export interface Holder {
  pid: number;
  name: string;
  bytes: number;
}

/** `available`: within the limits of control groups, too. */
export function memoryFinding(totalBytes: number, availableBytes: number, holders: () => Holder[]): Finding {
  const says = `${gigabytes(availableBytes)} of ${gigabytes(totalBytes)} can be had`;
  if (availableBytes > MEMORY_LOW) return pass('memory', says);
  const most = holders().map(({ pid, name, bytes }) => `${name} (process ${pid}) ${gigabytes(bytes)}`);
  return warn('memory', `${says}; most is held by ${most.join(', ')}`, 'end what you do not need');
}

/** The processes with the most memory of their own. Reference: proc(5), `/proc/PID/status`. */
export function memoryHolders(): Holder[] {
  const pids = listKernelFolder('/proc').filter((name) => /^\d+$/.test(name));
  const all = pids.flatMap((pid) => {
    const status = readKernelFile(`/proc/${pid}/status`);
    const bytes = Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
    return bytes > 0 ? [{ pid: Number(pid), name: /^Name:\s+(.*)$/m.exec(status)?.[1] ?? '?', bytes }] : [];
  });
  return all.sort((a, b) => b.bytes - a.bytes).slice(0, HOLDERS);
}

/** Files that connections and models may need at once. */
const FILES_MIN = 4096;

/** `limits`: the text of `/proc/self/limits`, empty where there is none. */
export function limitsFinding(limits: string): Finding {
  const limit = (name: string, kind: 1 | 2) => {
    const found = new RegExp(`^${name}\\s+(\\S+)\\s+(\\S+)`, 'm').exec(limits)?.[kind];
    return found === undefined || found === 'unlimited' ? Number.POSITIVE_INFINITY : Number(found);
  };
  // Of open files Node takes what it may have, the hard limit; of the others the soft one is what counts.
  const [files, space, size] = [limit('Max open files', 2), limit('Max address space', 1), limit('Max file size', 1)];
  if (space < 2 ** 40)
    return fail(
      'limits',
      `address space is limited to ${gigabytes(space)}: no model can be mapped`,
      'ulimit -v unlimited',
    );
  if (size < 2 ** 40)
    return fail('limits', `files may have ${gigabytes(size)} at most: no model can be prepared`, 'ulimit -f unlimited');
  if (files < FILES_MIN)
    return warn(
      'limits',
      `${files} open files at most: many clients will be refused`,
      `ulimit -Hn ${FILES_MIN}, or LimitNOFILE`,
    );
  return pass('limits', `open files ${Number.isFinite(files) ? files : 'without limit'}`);
}

/** `quota`: processors' worth of time that the control group has; null without a bound. */
export function processorsFinding(count: number, quota: number | null): Finding {
  if (quota === null || quota >= count) return pass('processors', `${count}`);
  const says = `${quota.toFixed(1)} of ${count}: the control group lets no more be used`;
  if (quota >= PROCESSORS_MIN) return pass('processors', says);
  return warn('processors', says, 'CPUQuota of the unit, --cpus of the container');
}

/** Threads and processes that supervisor, API and worker have at most, on a machine with many processors. */
const TASKS_MIN = 512;

/** `room`: threads and processes that the control group has left; null without a bound. */
export function tasksFinding(room: number | null): Finding {
  if (room === null) return pass('tasks', 'without limit');
  if (room >= TASKS_MIN) return pass('tasks', `${room} more threads and processes`);
  return warn(
    'tasks',
    `the control group has room for ${room} threads and processes: the worker may fail to start`,
    'TasksMax of the unit, --pids-limit of the container',
  );
}

/** The least of the group's own and of those around it. Reference: cgroup-v2, "pids.max". */
export function tasksRoom(root = '/'): number | null {
  const groups = ([1, 2] as const).flatMap((version) => controlGroups({ version, controller: 'pids' }, root));
  const rooms = groups.flatMap((group) => {
    const number = (file: string) => Number(readKernelFile(join(group, file)).trim() || Number.NaN);
    const room = number('pids.max') - number('pids.current');
    // One that is not there, or 'max', is no number.
    return Number.isNaN(room) ? [] : [Math.max(0, room)];
  });
  return rooms.length === 0 ? null : Math.min(...rooms);
}

/** `builtMs`: when this program was made. `isSynchronised`: what the system says of it; null where it says nothing. */
export function clockFinding(nowMs: number, builtMs: number, isSynchronised: boolean | null): Finding {
  const now = new Date(nowMs).toISOString();
  const step = 'set it: timedatectl set-ntp true';
  if (nowMs < builtMs - 86_400_000)
    return fail('clock', `${now} is before this program was made: times of jobs and sessions will be wrong`, step);
  if (isSynchronised === false) return warn('clock', `${now}, and nothing keeps it right`, step);
  return pass('clock', now);
}
