/** Tells the log what has changed between two states of the supervisor. */
import { CHILD_NAMES } from '@qwen-supervisor/protocol/status';
import type { Logger } from 'pino';
import type { Child } from './child.js';
import type { State } from './supervisor.js';

export function logChanges(log: Logger, before: State, after: State): void {
  for (const name of CHILD_NAMES) {
    const [old, now] = [before.children[name], after.children[name]];
    if (old.state === now.state && old.incarnation === now.incarnation) continue;
    const text = now.reason === now.state ? now.state : `${now.state}: ${now.reason}`;
    log[levelOf(old, now)]({ child: name, pid: now.pid ?? old.pid, state: now.state }, text);
  }
  const { load } = after;
  if (load && load.component !== before.load?.component) {
    log.info({ child: 'inference', ...load }, `loading ${load.component}, ${percent(load.bytesDone, load.bytesTotal)}`);
  }
}

/** A crash is a warning, a surrender an error; the turns of every job are details. */
function levelOf(old: Child, now: Child): 'error' | 'warn' | 'info' | 'debug' {
  if (now.state === 'failed') return 'error';
  if (now.restarts > old.restarts) return 'warn';
  return now.state === 'busy' || old.state === 'busy' ? 'debug' : 'info';
}

function percent(done: number, total: number): string {
  return total === 0 ? '0 %' : `${Math.floor((100 * done) / total)} %`;
}
