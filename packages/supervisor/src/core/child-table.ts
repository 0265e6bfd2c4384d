/**
 * The lifecycle of one child process as a table: every phase answers every event. Pure; the shell performs the
 * effects and tells what happened. What an answer does is in child-starts.ts, child-life.ts and child-ends.ts.
 *
 *   stopped → starting → loading → ready ⇄ busy → stopping | dying | killing → stopped, failed,
 *   or by way of backing-off and blocked → starting
 *
 * An event belongs to an incarnation (one spawned process); events of an earlier one never get here.
 */
import type { Child, ChildEvent, ChildLimits, ChildStep, Phase } from './child.js';
import * as ends from './child-ends.js';
import * as life from './child-life.js';
import * as starts from './child-starts.js';

type Answer<T extends ChildEvent['type']> = (
  child: Child,
  event: Extract<ChildEvent, { type: T }>,
  atMs: number,
  limits: ChildLimits,
) => ChildStep;
type Row = { [T in ChildEvent['type']]: Answer<T> };

/** May come, and changes nothing: too late, too early, or for others. */
const ignored = (child: Child): ChildStep => ({ child, effects: [] });

/** Comes only from a peer that breaks the protocol, or from a fault of ours: said, and changes nothing. */
const impossible = (child: Child, event: ChildEvent): ChildStep => ({
  child,
  effects: [{ type: 'note-impossible', name: child.name, phase: child.phase, event: event.type }],
});

// Every cell is written, so that a new event or phase is a hole that the compiler finds.
// biome-ignore format: a row is a phase, a line is a kind of event
const TABLE: Record<Phase, Row> = {
  stopped: {
    start: starts.spawn, restart: starts.startAnew, wanted: starts.startWanted, stop: ignored, tick: ignored,
    spawned: impossible, connected: impossible, progress: impossible, ready: impossible, beat: impossible,
    fatal: impossible, exited: impossible, holds: ignored, memory: ignored,
    assigned: impossible, begun: impossible, idle: impossible,
  },
  starting: {
    start: impossible, restart: ends.restartNow, wanted: ignored, stop: ends.stopNow, tick: ends.tickStarting,
    spawned: starts.spawned, connected: life.connected, progress: impossible, ready: life.becomeReady, beat: ignored,
    fatal: ends.die, exited: ends.exited, holds: impossible, memory: ignored,
    assigned: impossible, begun: impossible, idle: impossible,
  },
  loading: {
    start: impossible, restart: ends.restartNow, wanted: ignored, stop: ends.stopNow, tick: ends.tickLoading,
    spawned: impossible, connected: impossible, progress: life.progress, ready: life.becomeReady, beat: life.beatLoading,
    fatal: ends.die, exited: ends.exited, holds: impossible, memory: ignored,
    assigned: impossible, begun: impossible, idle: impossible,
  },
  ready: {
    start: impossible, restart: ends.restart, wanted: ignored, stop: ends.stop, tick: ends.tickAlive,
    spawned: impossible, connected: impossible, progress: impossible, ready: impossible, beat: life.beat,
    fatal: ends.die, exited: ends.exited, holds: life.holds, memory: ignored,
    assigned: life.assign, begun: impossible, idle: impossible,
  },
  busy: {
    start: impossible, restart: ends.restart, wanted: ignored, stop: ends.stop, tick: ends.tickAlive,
    spawned: impossible, connected: impossible, progress: impossible, ready: impossible, beat: life.beat,
    fatal: ends.die, exited: ends.exited, holds: life.holds, memory: ignored,
    assigned: impossible, begun: life.begin, idle: life.finishJob,
  },
  stopping: {
    start: impossible, restart: ends.restartAfterStop, wanted: ends.startAfterStop, stop: ends.planStop,
    tick: ends.tickStopping,
    spawned: impossible, connected: ignored, progress: ignored, ready: ignored, beat: ignored,
    fatal: ignored, exited: ends.exited, holds: life.holds, memory: ignored,
    assigned: impossible, begun: ignored, idle: life.putJobDown,
  },
  dying: {
    start: impossible, restart: ends.restartAfterStop, wanted: ends.startAfterStop, stop: ends.planStop,
    tick: ends.tickDying,
    spawned: impossible, connected: impossible, progress: ignored, ready: ignored, beat: ignored,
    fatal: ignored, exited: ends.exited, holds: life.holds, memory: ignored,
    assigned: impossible, begun: ignored, idle: life.putJobDown,
  },
  killing: {
    start: impossible, restart: ends.restartAfterStop, wanted: ends.startAfterStop, stop: ends.planStop,
    tick: ends.tickKilling,
    spawned: starts.spawned, connected: ignored, progress: ignored, ready: ignored, beat: ignored,
    fatal: ignored, exited: ends.exited, holds: life.holds, memory: ignored,
    assigned: impossible, begun: ignored, idle: life.putJobDown,
  },
  'backing-off': {
    start: impossible, restart: starts.startAnew, wanted: ignored, stop: ends.becomeStopped, tick: starts.tickBackingOff,
    spawned: impossible, connected: impossible, progress: impossible, ready: impossible, beat: impossible,
    fatal: impossible, exited: impossible, holds: ignored, memory: ignored,
    assigned: impossible, begun: impossible, idle: impossible,
  },
  blocked: {
    start: impossible, restart: starts.startAnew, wanted: ignored, stop: ends.becomeStopped, tick: starts.tickBlocked,
    spawned: impossible, connected: impossible, progress: impossible, ready: impossible, beat: impossible,
    fatal: impossible, exited: impossible, holds: ignored, memory: starts.learnMemory,
    assigned: impossible, begun: impossible, idle: impossible,
  },
  failed: {
    start: impossible, restart: starts.startAnew, wanted: ignored, stop: ends.becomeStopped, tick: ignored,
    spawned: impossible, connected: impossible, progress: impossible, ready: impossible, beat: impossible,
    fatal: impossible, exited: impossible, holds: ignored, memory: ignored,
    assigned: impossible, begun: impossible, idle: impossible,
  },
};

export function decideChild(child: Child, event: ChildEvent, atMs: number, limits: ChildLimits): ChildStep {
  // The cell's type depends on the event's; the table's type has checked the pairing.
  const cell = TABLE[child.phase][event.type] as Answer<typeof event.type>;
  return cell(child, event as never, atMs, limits);
}
