import type { SystemStatus } from '@qwen-supervisor/protocol/status';
import type { Command } from 'commander';
import { ask, withDataDir } from './client.js';
import { print } from './printer.js';

export function addStatus(program: Command): void {
  withDataDir(program.command('status'))
    .description('show what the supervisor and its children do')
    .option('--json', 'the whole status as one JSON object')
    .action(async (options: { dataDir?: string; json?: boolean }) => {
      const status = await ask(options, ({ link }) => link.request('status', {}), true);
      print(options.json ? JSON.stringify(status) : describe(status));
    });
}

function describe({ supervisor, children, device, model, queue }: SystemStatus): string {
  const row = (who: string, state: string, text: string) => `${who.padEnd(12)}${state.padEnd(13)}${text}`;
  const load = model.bytesTotal > 0 ? `${Math.floor((100 * model.bytesDone) / model.bytesTotal)} %` : '';
  const eta = model.etaSeconds === null ? null : `${Math.ceil(model.etaSeconds)} s to go`;
  return [
    row(
      'supervisor',
      'running',
      `pid ${supervisor.pid}, up ${Math.round(supervisor.uptimeSeconds)} s, ${supervisor.url}`,
    ),
    ...children.map(({ name, pid, state, restarts, reason }) =>
      row(
        name,
        state,
        [pid === null ? null : `pid ${pid}`, `${restarts} restarts`, reason].filter((part) => part !== null).join(', '),
      ),
    ),
    row('device', device.device, `${device.name}: ${device.reason}`),
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
  ].join('\n');
}
