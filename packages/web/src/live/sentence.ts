/** What the status line says: what is, why, and what comes next. Pure. */
import { type ChildStatus, mainWorker } from '@qwen-supervisor/protocol/status';
import { COMPONENTS, nameOfChild } from '../words';
import { clock, duration, gigabytes, timeLeft } from './eta';
import type { LiveState, Running } from './state';

export type Connection =
  | { kind: 'connecting' }
  | { kind: 'open' }
  /** Not wanted while nobody looks. */
  | { kind: 'hidden' }
  | { kind: 'lost'; sinceMs: number; nextTryAtMs: number };

export interface Sentence {
  tone: 'ok' | 'busy' | 'warn' | 'bad';
  text: string;
  /** 0 to 1, where something gets on. */
  progress: number | null;
}

/** A load that does not get on for this long is told so. */
const STALL_MS = 20_000;
/** Shorter gaps are not worth a word. */
const GAP_MS = 1000;

export function sentenceOf(state: LiveState, connection: Connection, nowMs: number): Sentence {
  const sentence = mainSentence(state, connection, nowMs);
  const { children } = state.status;
  // While one draws, those that do not are told beside it.
  const others = children.filter((child) => child !== mainWorker(children) && child.name !== 'api' && isDown(child));
  if (others.length === 0 || connection.kind === 'lost' || sentence.tone === 'bad') return sentence;
  const down = others.map((child) => `${capital(nameOfChild(child))} does not draw: ${child.reason}.`);
  return { ...sentence, tone: 'warn', text: [sentence.text.replace(/[^.]$/, '$&.'), ...down].join(' ') };
}

function isDown({ state }: ChildStatus): boolean {
  return state === 'failed' || state === 'blocked' || state === 'backing-off';
}

function mainSentence(state: LiveState, connection: Connection, nowMs: number): Sentence {
  if (connection.kind === 'lost' && nowMs - connection.sinceMs > GAP_MS) return lost(connection, nowMs);
  const serverMs = nowMs + state.clockAheadMs;
  const { children, queue, model } = state.status;
  const worker = mainWorker(children);
  const say = (tone: Sentence['tone'], text: string, progress: number | null = null) => ({ tone, text, progress });
  if (queue.problem !== null) return say('bad', `The queue stands still: ${queue.problem}.`);
  switch (worker.state) {
    case 'failed':
      return say('bad', `The worker cannot start: ${worker.reason}. Repair that, then restart the worker.`);
    case 'backing-off':
    case 'blocked':
      return say('warn', `${capital(worker.reason)}.${goesOn(state)}`);
    case 'starting':
      return say('busy', `The worker is starting.${goesOn(state)}`);
    case 'stopping':
      return say('busy', `The worker is stopping: ${worker.reason}.`);
    case 'loading':
      return loading(state, serverMs);
    case 'busy':
      return drawing(state.running, serverMs);
    case 'stopped':
      return say('ok', `${model.id} is not in memory. The next picture loads it.`);
    default:
      return say('ok', `${model.id} is ready.`);
  }
}

export function runningSentence({ job, phase, toldAtMs }: Running, serverMs: number): string {
  const left = timeLeft(job.eta, (serverMs - toldAtMs) / 1000);
  const until = left === null ? '' : `, ${left} left`;
  if (phase === 'text') return `Reading the prompt${until}`;
  return phase === 'decoding' ? `Decoding the picture${until}` : `Drawing ${job.step}/${job.steps}${until}`;
}

function drawing(running: readonly Running[], serverMs: number): Sentence {
  const [first] = running;
  if (!first) return { tone: 'busy', text: 'Drawing.', progress: null };
  if (running.length === 1)
    return { tone: 'busy', text: runningSentence(first, serverMs), progress: first.job.progress };
  const steps = running.map(({ job }) => `${job.step}/${job.steps}`).join(', ');
  const progress = running.reduce((sum, { job }) => sum + job.progress, 0) / running.length;
  return { tone: 'busy', text: `Drawing ${running.length} pictures: ${steps}`, progress };
}

function loading({ status: { model }, loadMovedAtMs, running, queue }: LiveState, serverMs: number): Sentence {
  const { id, component, bytesDone, bytesTotal, etaSeconds } = model;
  const waits = running.length > 0 || queue.length > 0 ? '' : ' Prompts sent now are queued.';
  const progress = bytesTotal > 0 ? bytesDone / bytesTotal : null;
  const stillMs = serverMs - loadMovedAtMs;
  if (stillMs > STALL_MS && component !== 'warm-up') {
    const text = `Loading has stood still for ${duration(stillMs / 1000)} at ${gigabytes(bytesDone)}. If it goes on so it is stopped and tried again.`;
    return { tone: 'warn', text, progress };
  }
  const part = component === null ? '' : `: ${COMPONENTS[component]}`;
  const bytes = bytesTotal > 0 ? `, ${gigabytes(bytesDone)} of ${gigabytes(bytesTotal)}` : '';
  const left = etaSeconds === null || etaSeconds < 1 ? '' : `, about ${duration(etaSeconds)}`;
  return { tone: 'busy', text: `Loading ${id}${part}${bytes}${left}.${waits}`, progress };
}

/** What becomes of a picture whose worker is gone. */
function goesOn({ running, queue }: LiveState): string {
  const job = running[0]?.job ?? queue.find(({ step }) => step > 0);
  return job && job.step > 0 ? ` The picture goes on at step ${job.step}.` : '';
}

function lost({ sinceMs, nextTryAtMs }: Extract<Connection, { kind: 'lost' }>, nowMs: number): Sentence {
  const next = Math.ceil((nextTryAtMs - nowMs) / 1000);
  const trying = next > 0 ? `Trying again in ${next} s.` : 'Trying again.';
  const text = `Connection lost ${duration((nowMs - sinceMs) / 1000)} ago, at ${clock(sinceMs)}. ${trying} Jobs already accepted are stored on the server.`;
  return { tone: 'warn', text, progress: null };
}

/** What the tab says. */
export function titleOf(
  state: LiveState,
  connection: Connection,
): { text: string; icon: 'icon' | 'icon-busy' | 'icon-bad' } {
  const [running] = state.running;
  const worker = mainWorker(state.status.children);
  if (connection.kind === 'lost') return { text: 'Connection lost · qwen-supervisor', icon: 'icon-bad' };
  if (worker.state === 'failed') return { text: 'Cannot draw · qwen-supervisor', icon: 'icon-bad' };
  if (running?.phase === 'decoding') return { text: 'Decoding · qwen-supervisor', icon: 'icon-busy' };
  if (running) {
    const tenth = Math.floor(running.job.progress * 10) * 10;
    return { text: `${tenth} % · qwen-supervisor`, icon: 'icon-busy' };
  }
  if (worker.state === 'loading') return { text: 'Loading · qwen-supervisor', icon: 'icon-busy' };
  return { text: 'qwen-supervisor', icon: 'icon' };
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
