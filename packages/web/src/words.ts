/** Every sentence of the page that is not the server's. */
import type { ChildName, ChildStatus, ModelComponent } from '@qwen-supervisor/protocol/status';

export const NETWORK = {
  message: 'The server does not answer.',
  hint: "Is it running, and reachable from here? 'qwen-supervisor status' tells. What was accepted is stored there.",
};

export const PROXY = {
  message: (status: number) => `Something before the server answers with ${status}.`,
  hint: 'A proxy may allow smaller requests than the server does (413), or know nothing of it.',
};

export const COMPONENTS: Record<ModelComponent, string> = {
  tokenizer: 'tokenizer',
  text_encoder: 'text encoder',
  transformer: 'transformer',
  vae: 'decoder',
  'warm-up': 'warm-up',
};

/** Of several workers each has its number. */
export function childName(name: ChildName): string {
  return name === 'api' ? 'api' : name.replace('inference-', 'worker ').replace('inference', 'worker');
}

/** On what a job is, or was, drawn: with the machine, where several share the queue. */
export function placeOf({ devices, machine }: { devices: readonly string[]; machine: string | null }): string | null {
  const device = devices.at(-1);
  if (device === undefined) return null;
  return machine === null ? device : `${machine}, ${device}`;
}

/** With what it computes on. */
export function nameOfChild({ name, device }: Pick<ChildStatus, 'name' | 'device'>): string {
  return device === null ? childName(name) : `${childName(name)} on ${device.device}`;
}

export const PRESETS: Record<string, string> = { fast: 'Fast', balanced: 'Balanced', high: 'High' };

export function pictures(count: number): string {
  return count === 1 ? '1 picture' : `${count} pictures`;
}

export const STATUS_WORDS = {
  queued: 'queued',
  running: 'running',
  done: 'done',
  failed: 'failed',
  cancelled: 'cancelled',
} as const;

/** What went on where, after a job had more than one attempt. */
export function resumedSentence(job: {
  resumedAtStep: number | null;
  startedOverReason: string | null;
  attempts: number;
  devices: readonly string[];
  machine: string | null;
}): string | null {
  if (job.startedOverReason !== null) return `Started over: ${job.startedOverReason}.`;
  if (job.resumedAtStep === null) return null;
  const moved = job.devices.length > 1 ? `, on ${placeOf(job)}` : '';
  return `Went on at step ${job.resumedAtStep} after attempt ${job.attempts - 1} had ended${moved}.`;
}
