/** How the log tells what has changed. */
import type { LoadProgress } from '@qwen-supervisor/protocol/status';
import type { Logger } from 'pino';
import type { Change } from '../core/state-changes.js';

export function logChange(log: Pick<Logger, Change['level']>, { level, event }: Change): void {
  if (event.type === 'load') {
    const { name: child, progress } = event;
    log[level]({ child, ...progress }, `loading ${progress.component}, ${percent(progress)}`);
  } else {
    const { name: child, pid, state, reason } = event;
    log[level]({ child, pid, state }, reason === state ? state : `${state}: ${reason}`);
  }
}

function percent({ bytesDone, bytesTotal }: LoadProgress): string {
  return bytesTotal === 0 ? '0 %' : `${Math.floor((100 * bytesDone) / bytesTotal)} %`;
}
