/** The state of the supervisor as everybody outside sees it. */
import type { ModelStatus, QueueStatus, SystemStatus } from '@qwen-supervisor/protocol/status';
import { CHILD_NAMES, isUp } from '@qwen-supervisor/protocol/status';
import { loadEta } from './expected-times.js';
import type { State } from './supervisor.js';

export function describeSystem(
  state: State,
  supervisor: SystemStatus['supervisor'],
  model: Pick<ModelStatus, 'id' | 'folder'>,
  queue: Pick<QueueStatus, 'queued' | 'running' | 'problem'>,
  atMs: number,
): SystemStatus {
  const { children, load, loadSeconds, current } = state;
  const worker = children.inference.state;
  const ready = isUp(worker) || (worker === 'stopping' && children.inference.wasReady);
  const loading = worker === 'loading';
  return {
    supervisor: { ...supervisor, uptimeSeconds: Math.round(supervisor.uptimeSeconds * 10) / 10 },
    children: CHILD_NAMES.map((name) => {
      const { pid, state: childState, restarts, vitals, deviceBytes, lastExit, reason } = children[name];
      const rssBytes = pid === null ? null : (vitals?.rssBytes ?? null);
      return { name, pid, state: childState, restarts, rssBytes, deviceBytes, lastExit, reason };
    }),
    model: {
      ...model,
      state: ready ? 'ready' : loading ? 'loading' : 'unloaded',
      component: loading ? (load?.component ?? null) : null,
      bytesDone: ready || loading ? (load?.bytesDone ?? 0) : 0,
      bytesTotal: load?.bytesTotal ?? 0,
      etaSeconds: loadEta(state, atMs),
      loadSeconds,
    },
    queue: { ...queue, current: current?.job.id ?? null },
  };
}
