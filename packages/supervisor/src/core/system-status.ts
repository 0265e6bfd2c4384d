/** The state of the supervisor as everybody outside sees it. */
import type { ModelStatus, QueueStatus, SystemStatus } from '@qwen-supervisor/protocol/status';
import { CHILD_NAMES, isUp } from '@qwen-supervisor/protocol/status';
import { activityOf, stateOf } from './child.js';
import { loadEta } from './expected-times.js';
import { childOf, runs, type State, WORKER_NAMES } from './state.js';

export function describeSystem(
  state: State,
  { supervisor, machine }: Pick<SystemStatus, 'supervisor' | 'machine'>,
  device: SystemStatus['device'],
  model: Pick<ModelStatus, 'id' | 'folder'>,
  queue: Pick<QueueStatus, 'queued' | 'running' | 'problem'>,
  atMs: number,
): SystemStatus {
  return {
    supervisor: { ...supervisor, uptimeSeconds: Math.round(supervisor.uptimeSeconds * 10) / 10 },
    machine,
    children: CHILD_NAMES.map((name) => {
      const child = childOf(state, name);
      const { pid, restarts, vitals, device, lastExit, reason } = child;
      const rssBytes = pid === null ? null : (vitals?.rssBytes ?? null);
      return { name, pid, state: stateOf(child), restarts, rssBytes, deviceBytes: device.heldBytes, lastExit, reason };
    }),
    device,
    model: { ...model, ...describeModel(state, atMs) },
    queue: { ...queue, current: runs(state)[0]?.job.id ?? null },
  };
}

/** Of several workers that of the one that is furthest: it decides when a picture can be drawn. */
function describeModel({ workers }: State, atMs: number): Omit<ModelStatus, 'id' | 'folder'> {
  const all = WORKER_NAMES.map((name) => workers[name]);
  // One that stops still has it.
  const isReady = all.find(({ child }) => child.pid !== null && isUp(activityOf(child)));
  const isLoading = all.find(({ child }) => child.phase === 'loading');
  const { load, loadSeconds, child } = isReady ?? isLoading ?? (all[0] as (typeof all)[number]);
  return {
    state: isReady ? 'ready' : isLoading ? 'loading' : 'unloaded',
    component: !isReady && isLoading ? (load?.component ?? null) : null,
    bytesDone: isReady || isLoading ? (load?.bytesDone ?? 0) : 0,
    bytesTotal: load?.bytesTotal ?? 0,
    etaSeconds: isReady ? null : loadEta(child, atMs),
    loadSeconds,
  };
}
