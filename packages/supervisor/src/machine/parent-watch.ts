/**
 * npm and npx do not always pass on how they end (SIGKILL, a closed terminal, npm's own faults). A supervisor that they
 * started stops when they are gone, instead of running on unseen.
 */
import { readFileSync } from 'node:fs';

const LOOK_MS = 1000;
/** A shell that npm has put between itself and us. */
const SHELL = /^(sh|bash|dash|ash|zsh|busybox)$/;

/** Calls `onGone` once, when the npm that started us has ended. Does nothing where npm did not start us. */
export function watchNpmParent(env: NodeJS.ProcessEnv, onGone: () => void): void {
  if (env.npm_lifecycle_event === undefined && env.npm_command === undefined) return;
  const before = ancestors();
  const timer = setInterval(() => {
    if (ancestors().join() === before.join()) return;
    clearInterval(timer);
    onGone();
  }, LOOK_MS);
  timer.unref();
}

/** Our parent and, if that is a shell, its parent: process ids change when one of them ends. */
function ancestors(): number[] {
  const parent = process.ppid;
  const stat = statOf(parent);
  return stat && SHELL.test(stat.name) ? [parent, stat.parent] : [parent];
}

/** Null where there is no /proc, or the process has ended. */
function statOf(pid: number): { name: string; parent: number } | null {
  try {
    const [, name, parent] = /^\d+ \((.*)\) \S (\d+)/s.exec(readFileSync(`/proc/${pid}/stat`, 'utf8')) ?? [];
    return name === undefined ? null : { name, parent: Number(parent) };
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}
