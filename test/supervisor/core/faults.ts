/** How the faults of a simulated world strike. */
import type { WorkerName } from '@qwen-supervisor/protocol/status';
import { nextDeadline } from '@qwen-supervisor/supervisor/core/state';
import { exited } from './child-events.js';
import { cancelSomething, moveSomething } from './simulated-clients.js';
import type { Worker } from './simulated-worker.js';
import type { World } from './simulated-world.js';
import { type Fault, TAKEN_BYTES } from './swarm.js';

export async function strike(world: World, fault: Fault): Promise<void> {
  world.note(fault);
  const worker = world.someWorker();
  switch (fault) {
    case 'worker crashes':
      return worker && world.die(worker.name, null, 'SIGSEGV');
    case 'worker is killed':
      return worker && world.die(worker.name, null, 'SIGKILL');
    case 'kernel kills the worker':
      return worker && world.die(worker.name, null, 'SIGKILL', true);
    case 'worker falls silent':
      if (worker) worker.ill = 'silent';
      return;
    case 'worker does nothing':
      if (worker?.phase === 'drawing' || worker?.phase === 'loading') worker.ill = 'does nothing';
      return;
    case 'worker loops':
      if (worker?.phase === 'drawing' || worker?.phase === 'loading') worker.ill = 'loops';
      return;
    case 'worker takes memory':
      if (worker) worker.takenBytes += TAKEN_BYTES;
      return;
    case 'load fails':
      if (worker?.phase === 'loading') fail(world, worker, 'MODEL_LOAD_FAILED', world.random() < 0.1, 87);
      return;
    case 'device runs out':
      if (worker?.phase === 'loading') fail(world, worker, 'DEVICE_MEMORY_EXHAUSTED', false, 93);
      return;
    case 'api dies':
      return world.die('api', 1, null);
    case 'api says fatal':
      if (world.api !== null) {
        const error = { code: 'INTERNAL', message: '', hint: '' } as const;
        world.say('api', world.api, { type: 'fatal', error, permanent: false });
        if (world.random() < 0.5) world.die('api', 1, null);
      }
      return;
    case 'disk fills':
      world.diskFull = !world.diskFull;
      return;
    case 'supervisor is killed':
      return world.startSupervisor();
    case 'supervisor stands still':
      return standStill(world);
    case 'supervisor is stopped':
      return world.send({ type: 'stop', atMs: world.now, how: world.random() < 0.7 ? 'orderly' : 'now' });
    case 'store fails':
      return world.send({
        type: 'store-failed',
        atMs: world.now,
        error: { code: 'JOB_STORE_UNUSABLE', message: '', hint: '' },
      });
    case 'checkpoint is lost':
      return loseCheckpoint(world);
    case 'stray messages':
      return sendStray(world);
    case 'client cancels':
      return cancelSomething(world);
    case 'client moves':
      return moveSomething(world);
    case 'operator restarts':
      return world.restartWorker(someName(world));
    case 'operator unloads':
      return world.send({ type: 'unload-model', atMs: world.now });
    case 'operator loads':
      return world.send({ type: 'load-model', atMs: world.now });
  }
}

function fail(
  world: World,
  worker: Worker,
  code: 'MODEL_LOAD_FAILED' | 'DEVICE_MEMORY_EXHAUSTED',
  permanent: boolean,
  exitCode: number,
): void {
  world.say(worker.name, worker.incarnation, { type: 'fatal', error: { code, message: '', hint: '' }, permanent });
  worker.ill = 'has said fatal';
  // One that does not exit by itself is killed for its fault.
  if (world.random() < 0.8) world.die(worker.name, exitCode, null);
}

/** SIGSTOP, a suspended machine, a disk that hangs: the processes go on, and what they say is read afterwards. */
function standStill(world: World): void {
  const ms = Math.round(10 ** (3 + 2 * world.random()));
  const due = nextDeadline(world.state);
  if (world.random() < 0.5) world.work(ms);
  world.now += ms;
  // What has been sent meanwhile is read first, most of the time.
  if (world.random() < 0.7) while (world.messages.length > 0) world.receive(false);
  if (due !== null && due <= world.now && nextDeadline(world.state) === due) world.tick();
}

/** Only of jobs that do not run: those of a running one are written anew. */
function loseCheckpoint(world: World): void {
  const running = [...world.workers.values()].map(({ run }) => run?.job.id);
  const ids = [...world.checkpoints.keys()].filter((id) => !running.includes(id));
  const lost = ids[Math.floor(world.random() * ids.length)];
  if (lost === undefined) return;
  world.checkpoints.delete(lost);
  // Its steps are gone, and whoever dies before it has said so leaves nothing behind that knew of them.
  world.told.delete(lost);
}

function someName(world: World): WorkerName {
  return world.names[Math.floor(world.random() * world.names.length)] as WorkerName;
}

/** Messages of processes that are gone, and of runs that are over. */
function sendStray(world: World): void {
  const worker = someName(world);
  const incarnation = world.child(worker).incarnation - (world.random() < 0.5 ? 1 : 0);
  const jobId = world.accepted[0] ?? 'none';
  const stray = { worker, incarnation, atMs: world.now, jobId, attempt: 0 } as const;
  world.send({ type: 'job-step', ...stray, step: 1, preview: null });
  world.send({ type: 'job-finished', ...stray, outcome: { status: 'cancelled' } });
  const gone = { name: worker, incarnation: incarnation - 1, atMs: world.now };
  world.send({ type: 'child', ...gone, event: exited(1, null) });
}
