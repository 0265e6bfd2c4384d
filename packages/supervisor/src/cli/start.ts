import { CONFIG_KEYS, describeKey } from '@qwen-supervisor/protocol/config';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Command } from 'commander';

/** Terminal, npm and shell may each deliver the same Ctrl+C. */
const SAME_SIGNAL_MS = 500;

export function addStart(program: Command): void {
  const command = program.command('start').description('run the supervisor in the foreground');
  for (const key of CONFIG_KEYS) {
    const { doc, default: value } = describeKey(key);
    command.option(`--${key} <value>`, value === undefined ? doc : `${doc} (default: ${value})`);
  }
  command.option('--config <file>', 'TOML file with the same keys');
  command.action((options: Record<string, string>) => start(options));
}

async function start(options: Record<string, string>): Promise<void> {
  // Commander names an option `dataDir`; the configuration accepts it so.
  const { config: file, ...flags } = options;
  const [{ loadConfig }, { startDaemon }] = await Promise.all([import('../load-config.js'), import('../daemon.js')]);
  const config = loadConfig(flags, file ?? process.env.QWEN_SUPERVISOR_CONFIG, process.env);
  const daemon = await startDaemon(config, process.env);
  let firstSignalMs: number | null = null;
  const onSignal = (signal: NodeJS.Signals) => {
    const nowMs = Date.now();
    if (firstSignalMs === null) {
      firstSignalMs = nowMs;
      daemon.stop(signal);
    } else if (nowMs - firstSignalMs > SAME_SIGNAL_MS) daemon.kill();
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal);
  const error = await daemon.ended;
  if (error) throw CodedError.from(error);
}
