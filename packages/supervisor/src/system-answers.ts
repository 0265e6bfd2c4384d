/** What the supervisor tells of itself: everything at one moment. */
import { freemem, totalmem } from 'node:os';
import { VERSION } from '@qwen-supervisor/ipc/version';
import type { Config } from '@qwen-supervisor/protocol/config';
import type { Snapshot, Welcome } from '@qwen-supervisor/protocol/messages';
import type { Crash, SystemStatus, WorkerName } from '@qwen-supervisor/protocol/status';
import type { Supervised } from './control/peer-methods.js';
import { runs } from './core/state.js';
import { describeSystem } from './core/system-status.js';
import type { Parts } from './parts.js';

/** Jobs in a snapshot. */
const SNAPSHOT_JOBS = 50;

type Living = Pick<Supervised, 'jobs' | 'events' | 'state' | 'nowMs'>;

export function welcomeOf({ dataDir, httpPort, models }: Parts, now: Living, config: Config): Welcome {
  const offered = models.offered(config, now.state());
  return { version: VERSION, run: now.events.run, ...offered, dataDir, url: httpPort.url };
}

export async function statusOf({ httpPort, models }: Parts, now: Living, config: Config): Promise<SystemStatus> {
  const supervisor = { pid: process.pid, version: VERSION, uptimeSeconds: process.uptime(), url: httpPort.url };
  // On Linux that is MemAvailable.
  const machine = { memoryBytes: totalmem(), availableBytes: freemem() };
  const model = { id: models.info.id, folder: config.model };
  const deviceOf = (name: WorkerName) => models.of(name).device(config);
  const queue = { ...(await now.jobs.counts()), problem: now.jobs.problem };
  return describeSystem(now.state(), { supervisor, machine }, deviceOf, model, queue, now.nowMs());
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
  const begun = runs(now.state()).toSorted((a, b) => a.sinceMs - b.sinceMs);
  const running = await Promise.all(begun.map(({ job }) => jobs.get(job.id)));
  const queue = await jobs.waiting(SNAPSHOT_JOBS);
  const previews = running.flatMap(({ id }): [string, Uint8Array][] => {
    const png = events.preview(id);
    return png === null ? [] : [[id, png]];
  });
  const ended = await jobs.ended(SNAPSHOT_JOBS);
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
