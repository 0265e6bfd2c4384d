/** What has changed between two states of the supervisor, as events. */
import type { SystemEvent } from '@qwen-supervisor/protocol/events';
import { CHILD_NAMES } from '@qwen-supervisor/protocol/status';
import type { State } from './supervisor.js';

export interface Change {
  level: 'error' | 'warn' | 'info' | 'debug';
  event: Extract<SystemEvent, { type: 'child' | 'load' }>;
}

export function stateChanges(before: State, after: State): Change[] {
  const changes: Change[] = [];
  for (const name of CHILD_NAMES) {
    const [old, now] = [before.children[name], after.children[name]];
    if (old.state === now.state && old.incarnation === now.incarnation && old.reason === now.reason) continue;
    const { state, reason } = now;
    // A crash is a warning, a surrender an error; the turns of every job are details.
    const turn = state === 'busy' || old.state === 'busy';
    const level = state === 'failed' ? 'error' : now.restarts > old.restarts ? 'warn' : turn ? 'debug' : 'info';
    changes.push({ level, event: { type: 'child', name, state, pid: now.pid ?? old.pid, reason } });
  }
  const { load } = after;
  if (load && load.component !== before.load?.component) {
    changes.push({ level: 'info', event: { type: 'load', progress: load } });
  }
  return changes;
}
