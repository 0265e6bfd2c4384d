/** What the supervisor tells of itself: everything at one moment. */
import { freemem, totalmem } from 'node:os';
import { VERSION } from '@qwen-supervisor/ipc/version';
import type { Config } from '@qwen-supervisor/protocol/config';
import type { Job } from '@qwen-supervisor/protocol/job';
import type { Snapshot, Welcome } from '@qwen-supervisor/protocol/messages';
import type { Crash, MachineReport, SystemStatus, WorkerName } from '@qwen-supervisor/protocol/status';
import type { Supervised } from './control/peer-methods.js';
import { runs, type State } from './core/state.js';
import { describeSystem, describeWorkers } from './core/system-status.js';
import type { JobDesk } from './jobs/job-desk.js';
import type { Parts } from './parts.js';

/** Jobs in a snapshot. */
const SNAPSHOT_JOBS = 50;

type Living = Pick<Supervised, 'jobs' | 'events' | 'state' | 'nowMs'>;

export function welcomeOf({ dataDir, httpPort, models }: Parts, now: Living, config: Config): Welcome {
  const offered = models.offered(config, now.state());
  return { version: VERSION, run: now.events.run, ...offered, dataDir, url: httpPort.url };
}

/** What the other machines are told of this one. */
export function reportOf({ httpPort, models }: Parts, state: State, config: Config): MachineReport {
  const workers = describeWorkers(state, (name) => models.of(name).device(config));
  return {
    version: VERSION,
    url: httpPort.url,
    model: models.info.id,
    workers: workers.map(({ name, state, device, job, reason }) => ({
      name,
      state,
      device: device.device,
      job,
      reason,
    })),
  };
}

export async function statusOf(
  { httpPort, models, others }: Parts,
  now: Living,
  config: Config,
): Promise<SystemStatus> {
  const supervisor = { pid: process.pid, version: VERSION, uptimeSeconds: process.uptime(), url: httpPort.url };
  // On Linux that is MemAvailable.
  const machine = { memoryBytes: totalmem(), availableBytes: freemem() };
  const model = { id: models.info.id, folder: config.model };
  const deviceOf = (name: WorkerName) => models.of(name).device(config);
  const queue = await now.jobs.standing();
  const system = describeSystem(now.state(), { supervisor, machine }, deviceOf, model, queue, now.nowMs());
  return { ...system, machines: others.machines };
}

/** What other machines draw. */
async function elsewhere(jobs: JobDesk, here: readonly Job[]): Promise<Job[]> {
  const filter = { status: 'running' as const, source: null, group: null, ids: null };
  const { jobs: all } = await jobs.list(filter, null, SNAPSHOT_JOBS);
  return all.filter(({ id }) => !here.some((job) => job.id === id)).reverse();
}

export async function snapshotOf(
  parts: Parts,
  now: Living,
  config: Config,
  crashes: readonly Crash[],
): Promise<Snapshot> {
  const { jobs, events } = now;
  // Before everything else: what happens meanwhile comes as an event, too.
  const { lastSeq } = events;
  const status = await statusOf(parts, now, config);
  // While the store is away what is known without it, beside the reason: whoever looks wants to see what is wrong.
  const orWhileAway = <T>(asked: Promise<T>, known: T) =>
    asked.catch((error: unknown) => {
      if (status.queue.problem === null) throw error;
      return known;
    });
  const begun = runs(now.state()).toSorted((a, b) => a.sinceMs - b.sinceMs);
  const here = await Promise.all(begun.map(({ job }) => orWhileAway(jobs.get(job.id), job)));
  const others = parts.others.machines.length > 0 ? await orWhileAway(elsewhere(jobs, here), []) : [];
  const running = [...here, ...others];
  const queue = await orWhileAway(jobs.waiting(SNAPSHOT_JOBS), []);
  const previews = running.flatMap(({ id }): [string, Uint8Array][] => {
    const png = events.preview(id);
    return png === null ? [] : [[id, png]];
  });
  const ended = await orWhileAway(jobs.ended(SNAPSHOT_JOBS), []);
  return {
    lastSeq,
    status,
    running,
    previews: Object.fromEntries(previews),
    queue,
    ended,
    crashes: [...crashes],
  };
}
