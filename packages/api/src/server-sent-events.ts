/** Job events as clients see them on an event stream. */
import type { JobEvent } from '@qwen-supervisor/protocol/job';

/** Name and JSON data of an event. A preview becomes base64 PNG. */
export function toServerSentEvent(event: JobEvent): { name: string; data: unknown } {
  switch (event.type) {
    case 'step': {
      const preview = event.preview ? Buffer.from(event.preview).toString('base64') : null;
      return { name: 'step', data: { id: event.jobId, step: event.step, steps: event.steps, preview } };
    }
    case 'running': {
      const { jobId: id, attempt, step, startedOverReason } = event;
      return { name: 'running', data: { id, attempt, step, startedOverReason } };
    }
    case 'requeued': {
      const { jobId: id, attempt, step, reason } = event;
      return { name: 'requeued', data: { id, attempt, step, reason } };
    }
    case 'queued':
    case 'done':
    case 'failed':
    case 'cancelled':
      return { name: event.type, data: event.job };
  }
}
