/**
 * Processes that outlive the one that they belong to: grandchildren in a group of their own, children of an earlier
 * supervisor where the parent-death signal did not reach them.
 *
 * They are known by a variable in their environment, which every descendant inherits and no other process has. The
 * start time guards against a process id that was given anew between the look and the kill.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { CHILD_ENV } from '@qwen-supervisor/protocol/messages';

const GONE_LIMIT_MS = 5000;
const LOOK_AGAIN_MS = 20;

interface ProcessId {
  pid: number;
  /** Clock ticks since boot. */
  startTime: string;
}

/**
 * Kills what is left over of earlier children of `dataDir` and waits until it is gone; gives their process ids. Call
 * it only while holding the data folder. Linux only: elsewhere nothing is found.
 */
export async function sweepSurvivors(dataDir: string): Promise<number[]> {
  const found = kill(marked(`${CHILD_ENV.dataDir}=${dataDir}`));
  const deadline = Date.now() + GONE_LIMIT_MS;
  // They are nobody's children any more that we could wait for.
  while (found.some(({ pid, startTime }) => startTimeOf(pid) === startTime) && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
  }
  return found.map(({ pid }) => pid);
}

/** Process ids of what is left over of children of `dataDir`. Linux only. */
export function findSurvivors(dataDir: string): number[] {
  return marked(`${CHILD_ENV.dataDir}=${dataDir}`).map(({ pid }) => pid);
}

/** Kills what a child has left behind, known by the child's token. Linux only. */
export function killDescendants(token: string): void {
  kill(marked(`${CHILD_ENV.token}=${token}`));
}

function kill(found: ProcessId[]): ProcessId[] {
  for (const { pid, startTime } of found) {
    if (startTimeOf(pid) === startTime) killIfThere(pid);
  }
  return found;
}

function marked(mark: string): ProcessId[] {
  if (process.platform !== 'linux') return [];
  return readdirSync('/proc').flatMap((name) => {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) return [];
    const startTime = startTimeOf(pid);
    const isOurs = readProc(pid, 'environ').split('\0').includes(mark);
    return startTime !== null && isOurs ? [{ pid, startTime }] : [];
  });
}

/** Null for a process that is gone, or dead and not yet reaped. */
function startTimeOf(pid: number): string | null {
  const stat = readProc(pid, 'stat');
  // The name in parentheses may hold anything; the fields after it are numbered from 3.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return stat === '' || fields[0] === 'Z' ? null : (fields[22 - 3] ?? null);
}

/** Empty for a process that is gone or not ours. */
function readProc(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES' || code === 'EPERM') return '';
    throw error;
  }
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
