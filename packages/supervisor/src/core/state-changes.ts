/** What has changed between two states of the supervisor, as events. */
import type { SystemEvent } from '@qwen-supervisor/protocol/events';
import { type Child, stateOf } from './child.js';
import { childOf, childrenOf, namesOf, type State, workerOf } from './state.js';

export interface Change {
  level: 'error' | 'warn' | 'info' | 'debug';
  event: Extract<SystemEvent, { type: 'child' | 'load' }>;
}

export function stateChanges(before: State, after: State): Change[] {
  const changes = childrenOf(after).flatMap((child) => changesOf(childOf(before, child.name), child));
  for (const name of namesOf(after)) {
    const { load } = workerOf(after, name);
    if (load && load.component !== workerOf(before, name).load?.component)
      changes.push({ level: 'info', event: { type: 'load', name, progress: load } });
  }
  return changes;
}

function changesOf(old: Child, now: Child): Change[] {
  if (old.phase === now.phase && old.incarnation === now.incarnation && old.reason === now.reason) return [];
  const { name, phase, reason } = now;
  // A crash is a warning, giving up an error; the turns of every job are details.
  const isTurn = phase === 'busy' || old.phase === 'busy';
  const level = phase === 'failed' ? 'error' : now.restarts > old.restarts ? 'warn' : isTurn ? 'debug' : 'info';
  return [{ level, event: { type: 'child', name, state: stateOf(now), pid: now.pid ?? old.pid, reason } }];
}
