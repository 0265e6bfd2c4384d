/** Where the threads of a process stand, as the Linux kernel sees them: what is left to know of one that hangs. */
import { readdirSync, readFileSync } from 'node:fs';

/** Threads that are named. */
const THREADS_MAX = 16;

/** One line per thread: name, state, where it waits in the kernel, processor ticks. Empty where there is no /proc. */
export function threadStates(pid: number): string[] {
  try {
    const threads = readdirSync(`/proc/${pid}/task`);
    return threads.slice(0, THREADS_MAX).map((thread) => describe(`/proc/${pid}/task/${thread}`, thread));
  } catch (error) {
    if (isGone(error)) return [];
    throw error;
  }
}

function describe(folder: string, thread: string): string {
  const stat = readFileSync(`${folder}/stat`, 'utf8');
  const name = stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'));
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = Number(fields[14 - 3]) + Number(fields[15 - 3]);
  return `thread ${thread} ${name}: ${fields[0]}, waits in ${wchan(folder)}, ${ticks} ticks`;
}

/** `0` for one that runs. */
function wchan(folder: string): string {
  try {
    return readFileSync(`${folder}/wchan`, 'utf8') || '?';
  } catch (error) {
    if (isGone(error)) return '?';
    throw error;
  }
}

function isGone(error: unknown): boolean {
  return ['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '');
}
