/** The state of the supervisor as everybody outside sees it. */
import type { ChosenDevice } from '@qwen-supervisor/protocol/device';
import type { ChildStatus, ModelStatus, QueueStatus, SystemStatus, WorkerName } from '@qwen-supervisor/protocol/status';
import { isUp, mainWorker } from '@qwen-supervisor/protocol/status';
import { activityOf, type Child, stateOf } from './child.js';
import { loadEta } from './expected-times.js';
import { namesOf, runs, type State, type Worker, workerOf, workersOf } from './state.js';

/** `deviceOf`: what a worker was given. */
export function describeSystem(
  state: State,
  { supervisor, machine }: Pick<SystemStatus, 'supervisor' | 'machine'>,
  deviceOf: (name: WorkerName) => ChosenDevice,
  model: Pick<ModelStatus, 'id' | 'folder'>,
  queue: Pick<QueueStatus, 'queued' | 'running' | 'problem'>,
  atMs: number,
): Omit<SystemStatus, 'machines'> {
  const workers = describeWorkers(state, deviceOf);
  const [first] = runs(state).toSorted((a, b) => a.sinceMs - b.sinceMs);
  return {
    supervisor: { ...supervisor, uptimeSeconds: Math.round(supervisor.uptimeSeconds * 10) / 10 },
    machine,
    children: [...workers, describeChild(state.api)],
    device: mainWorker(workers).device,
    model: { ...model, ...describeModel(state, atMs) },
    queue: { ...queue, current: first?.job.id ?? null },
  };
}

type WorkerStatus = ChildStatus & { name: WorkerName; device: ChosenDevice };

export function describeWorkers(state: State, deviceOf: (name: WorkerName) => ChosenDevice): WorkerStatus[] {
  return namesOf(state).map((name): WorkerStatus => {
    const { child, load, run } = workerOf(state, name);
    return {
      ...describeChild(child),
      name,
      device: deviceOf(name),
      load: child.phase === 'loading' ? load : null,
      job: run?.job.id ?? null,
    };
  });
}

function describeChild(child: Child): ChildStatus {
  const { name, pid, restarts, vitals, device, lastExit, reason } = child;
  const rssBytes = pid === null ? null : (vitals?.rssBytes ?? null);
  const nothing = { device: null, load: null, job: null };
  return {
    name,
    pid,
    state: stateOf(child),
    restarts,
    rssBytes,
    deviceBytes: device.heldBytes,
    lastExit,
    reason,
    ...nothing,
  };
}

/** Of several workers that of the one that is furthest: it decides when a picture can be drawn. */
function describeModel(state: State, atMs: number): Omit<ModelStatus, 'id' | 'folder'> {
  const all = workersOf(state);
  // One that stops still has it.
  const isReady = all.find(({ child }) => child.pid !== null && isUp(activityOf(child)));
  const [furthest] = all.filter(({ child }) => child.phase === 'loading').toSorted((a, b) => shareOf(b) - shareOf(a));
  const { load, loadSeconds, child } = isReady ?? furthest ?? (all[0] as Worker);
  return {
    state: isReady ? 'ready' : furthest ? 'loading' : 'unloaded',
    component: !isReady && furthest ? (load?.component ?? null) : null,
    bytesDone: isReady || furthest ? (load?.bytesDone ?? 0) : 0,
    bytesTotal: load?.bytesTotal ?? 0,
    etaSeconds: isReady ? null : loadEta(child, atMs),
    loadSeconds,
  };
}

function shareOf({ child }: Worker): number {
  return child.load.share;
}
