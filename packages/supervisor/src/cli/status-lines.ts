/** The status, the queue and the last crashes, as lines for people. Pure. */
import { harmless } from '@qwen-supervisor/protocol/harmless-text';
import type { Job } from '@qwen-supervisor/protocol/job';
import type { Snapshot } from '@qwen-supervisor/protocol/messages';
import type { LoadProgress, MachineStatus, SystemStatus } from '@qwen-supervisor/protocol/status';

const NAME_WIDTH = 12;
const STATE_WIDTH = 13;

function row(who: string, state: string, text: string): string {
  return `${who.padEnd(NAME_WIDTH)}${state.padEnd(STATE_WIDTH)}${text}`;
}

export function statusLines({ supervisor, children, device, model, queue, machines }: SystemStatus): string[] {
  const several = children.filter(({ name }) => name !== 'api').length > 1;
  const load = model.bytesTotal > 0 ? percent(model) : '';
  const eta = model.etaSeconds === null ? null : `${Math.ceil(model.etaSeconds)} s to go`;
  return [
    row(
      'supervisor',
      'running',
      `pid ${supervisor.pid}, up ${Math.round(supervisor.uptimeSeconds)} s, ${supervisor.url}`,
    ),
    ...children.map(({ name, pid, state, restarts, reason, load, device: own }) => {
      // Of one alone the lines below tell all that.
      const on = several && own ? `on ${own.device}` : null;
      const loaded = several && load ? `${percent(load)} loaded` : null;
      const parts = [pid === null ? null : `pid ${pid}`, on, `${restarts} restarts`, reason, loaded];
      return row(name, state, parts.filter((part) => part !== null).join(', '));
    }),
    ...(several ? children : [{ device }]).flatMap(({ device: one }) =>
      one ? [row('device', one.device, `${one.name}: ${one.reason}`)] : [],
    ),
    row(
      'model',
      model.state,
      [model.id, model.component, model.state === 'loading' ? load : null, eta].filter(Boolean).join(', '),
    ),
    row(
      'queue',
      queue.running > 0 ? 'drawing' : 'idle',
      [`${queue.queued} queued, ${queue.running} running`, queue.problem].filter(Boolean).join(', '),
    ),
    ...machineLines(machines),
  ];
}

/** A line for each that shares the queue. */
export function machineLines(machines: readonly MachineStatus[]): string[] {
  return machines.map(({ name, state, isDrained, isHere, seenAt, workers, model }) => {
    const drawing = workers.filter(({ job }) => job !== null).length;
    const does = `${drawing} of ${workers.length} workers draw`;
    const parts = [state === 'up' ? does : `last heard of at ${seenAt}`, isHere ? 'this one' : null, model];
    const shown = isDrained && state === 'up' ? 'drained' : state;
    return row('machine', shown, [name, ...parts].filter(Boolean).join(', '));
  });
}

function percent({ bytesDone, bytesTotal }: Pick<LoadProgress, 'bytesDone' | 'bytesTotal'>): string {
  return `${Math.floor((100 * bytesDone) / Math.max(1, bytesTotal))} %`;
}

/** Crashes that are shown. */
const CRASHES = 5;
const BAR_WIDTH = 24;

/** A screen of so many lines, none longer than `columns`. */
export function screenLines(snapshot: Snapshot, rows: number, columns: number, atMs: number): string[] {
  const { status, running, queue, crashes } = snapshot;
  const { model } = status;
  const last = crashes.slice(0, CRASHES);
  const lines = [
    ...statusLines(status),
    ...(model.state === 'loading' && model.bytesTotal > 0 ? [`  ${bar(model.bytesDone / model.bytesTotal)}`] : []),
    '',
    ...running.map((job) => `  ${bar(job.progress)} ${job.step}/${job.steps}  ${oneLine(job)}`),
  ];
  const below = [
    '',
    last.length === 0 ? 'no crashes' : 'crashes',
    ...last.map(
      ({ at, child, cause, reason }) => `  ${ago(atMs - Date.parse(at)).padEnd(10)} ${child}, ${cause}: ${reason}`,
    ),
    '',
    'q ends this view',
  ];
  const room = Math.max(0, rows - lines.length - below.length);
  // What does not fit is counted.
  const waiting = status.queue.queued > room ? Math.max(0, room - 1) : room;
  const shown = queue.slice(0, waiting).map((job) => `  #${String(job.position).padEnd(5)} ${oneLine(job)}`);
  const more = status.queue.queued - shown.length;
  if (more > 0 && room > 0) shown.push(`  and ${more} more`);
  return [...lines, ...shown, ...below].slice(0, rows).map((line) => cut(line, columns));
}

function bar(share: number): string {
  const full = Math.round(BAR_WIDTH * Math.min(1, Math.max(0, share)));
  return `[${'='.repeat(full)}${' '.repeat(BAR_WIDTH - full)}] ${String(Math.floor(100 * share)).padStart(3)} %`;
}

function oneLine({ prompt }: Job): string {
  return prompt.replace(/\s+/g, ' ');
}

function ago(ms: number): string {
  const minutes = ms / 60_000;
  if (minutes < 1) return 'just now';
  if (minutes < 90) return `${Math.round(minutes)} min ago`;
  return minutes < 60 * 36 ? `${Math.round(minutes / 60)} h ago` : `${Math.round(minutes / 1440)} d ago`;
}

/** Letters that take two columns. Reference: Unicode Standard Annex 11, the ranges that matter. */
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u;

/** One line of a terminal, harmless, in at most so many columns. */
export function cut(text: string, columns: number): string {
  const characters = [...harmless(text).replace(/\s/g, ' ')];
  if (widthOf(characters) <= columns) return characters.join('');
  // What could be seen at most: texts may be very long.
  const kept = characters.slice(0, columns);
  while (kept.length > 0 && widthOf(kept) > columns - 1) kept.pop();
  return `${kept.join('')}…`;
}

function widthOf(characters: string[]): number {
  return characters.reduce((width, character) => width + (WIDE.test(character) ? 2 : 1), 0);
}
