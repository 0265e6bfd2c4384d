/** How a child comes to run: cells of child-table.ts. Pure. */
import { type Child, type ChildEffect, type ChildStep, isDue, NO_DEVICE, type Of, stay, until } from './child.js';
import { NO_HISTORY } from './restart-policy.js';

/** How long a process may take until it has connected. */
const CONNECT_LIMIT_MS = 30_000;
/** How long may pass until it has a process: workers are planned one after the other. */
const PLAN_LIMIT_MS = 1_800_000;
/** From one look at the device's memory to the next: while it should be coming back, and while somebody holds it. */
const PROBE_MS = 250;
const PROBE_HELD_MS = 5000;
const RELEASE_MS = 10_000;
/** This much of what the process before held must be free again. */
const RELEASED_SHARE = 0.75;

export function spawn(child: Child, _event: Of<'start'>, atMs: number): ChildStep {
  return spawnFor(child, 'process starting', atMs);
}

function spawnFor(child: Child, reason: string, atMs: number): ChildStep {
  const incarnation = child.incarnation + 1;
  const fresh: Child = {
    ...child,
    phase: 'starting',
    incarnation,
    pid: null,
    reason,
    spawnedAtMs: atMs,
    healthySinceMs: null,
    vitals: null,
    beatAtMs: atMs,
    rssAtReady: null,
    device: NO_DEVICE,
    drain: null,
    ending: null,
    ...until(atMs + PLAN_LIMIT_MS),
  };
  return { child: fresh, effects: [{ type: 'spawn', name: child.name, incarnation }] };
}

/** Spawns, or first waits for the device's memory if the process before held some. */
export function startAgain(child: Child, reason: string, atMs: number): ChildStep {
  if (child.device.heldBytes === 0) return spawnFor(child, reason, atMs);
  const blocked: Child = {
    ...child,
    phase: 'blocked',
    reason,
    ending: null,
    beatAtMs: atMs,
    ...until(atMs + PROBE_MS),
  };
  return { child: blocked, effects: [probe(child)] };
}

const probe = ({ name, incarnation }: Child): ChildEffect => ({ type: 'probe-memory', name, incarnation });

/** Clears what was held against it: somebody who knows wants it to run. */
export function startAnew(child: Child, { reason }: Of<'restart'>, atMs: number): ChildStep {
  return startAgain({ ...child, history: NO_HISTORY }, reason, atMs);
}

/** After a stop that was asked for: the process before may still have to give its device memory back. */
export function startWanted(child: Child, { reason }: Of<'wanted'>, atMs: number): ChildStep {
  return startAgain(child, reason, atMs);
}

export function spawned(child: Child, { pid }: Of<'spawned'>, atMs: number): ChildStep {
  // One that is being killed meanwhile has a deadline of its own.
  return stay({ ...child, pid, ...(child.phase === 'starting' ? until(atMs + CONNECT_LIMIT_MS) : {}) });
}

export function tickBackingOff(child: Child, _event: Of<'tick'>, atMs: number): ChildStep {
  return isDue(child, atMs) ? startAgain(child, child.reason, atMs) : stay(child);
}

/** `beatAtMs` is when the wait began. */
export function tickBlocked(child: Child, _event: Of<'tick'>, atMs: number): ChildStep {
  if (!isDue(child, atMs)) return stay(child);
  const every = atMs - child.beatAtMs < RELEASE_MS ? PROBE_MS : PROBE_HELD_MS;
  return { child: { ...child, deadlineMs: atMs + every }, effects: [probe(child)] };
}

/** A device that does not answer cannot keep anybody waiting. */
export function learnMemory(child: Child, { freeBytes, holder }: Of<'memory'>, atMs: number): ChildStep {
  const { heldBytes, freeBytes: freeBefore } = child.device;
  if (freeBytes === null || freeBytes >= freeBefore + RELEASED_SHARE * heldBytes)
    return spawnFor(child, 'device memory is free again', atMs);
  return stay({ ...child, reason: `blocked: device memory is held by ${holder ?? 'a process that is not shown'}` });
}
