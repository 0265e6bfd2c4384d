/** What a process is doing, in words. Reference: proc(5), the state in /proc/PID/stat. */
import { readFileSync } from 'node:fs';

const STATES: Record<string, string> = {
  R: 'computing (R)',
  S: 'waiting (S)',
  D: 'waiting for a disk (D)',
  T: 'stopped (T); wake it with kill -CONT',
  t: 'stopped by a debugger (t)',
  Z: 'dead (Z)',
};

/** Null where there is none; where the system does not tell, only that it is there. */
export function processState(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name in parentheses may hold anything.
    const state = stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3);
    return STATES[state] ?? `in state ${state}`;
  } catch (error) {
    if (process.platform === 'linux') return null;
    return isThere(pid) ? `running (${(error as NodeJS.ErrnoException).code})` : null;
  }
}

function isThere(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
