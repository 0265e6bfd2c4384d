import { isatty } from 'node:tty';
import { setFlagsFromString } from 'node:v8';
import { CodedError, toCodedError } from '@qwen-supervisor/protocol/errors';
import type { Command } from 'commander';
import type { RunningDaemon } from '../daemon.js';
import { watchNpmParent } from '../machine/parent-watch.js';
import { type Settings, withSettings } from './settings.js';

/** Terminal, npm and shell may each deliver the same Ctrl+C. */
const SAME_SIGNAL_MS = 500;

export function addStart(program: Command): void {
  withSettings(program.command('start').description('run the supervisor in the foreground')).action(start);
}

/** Megabytes of the young generation: a process that only watches makes little garbage, and Node's default keeps 16. */
const YOUNG_GENERATION_MB = 1;

const NPM_GONE = 'the npm that started it has ended';

/**
 * Whether it runs without a terminal, as `nohup` leaves it: then the end of one is no matter. That `nohup` has the
 * signal ignored cannot be seen any more: Node undoes that as it starts.
 */
function isDetached(): boolean {
  return [0, 1, 2].every((fd) => !isatty(fd));
}

async function start(options: Settings): Promise<void> {
  setFlagsFromString(`--max-semi-space-size=${YOUNG_GENERATION_MB}`);
  setFlagsFromString('--optimize-for-size');
  // Commander names an option `dataDir`; the configuration accepts it so.
  const { config: file, ...flags } = options;
  let daemon: RunningDaemon | null = null;
  let first: { signal: NodeJS.Signals; atMs: number } | null = null;
  const starting = new AbortController();
  let stopReason: string | null = null;
  const stop = (reason: string) => {
    stopReason = reason;
    starting.abort();
    daemon?.stop(reason);
  };
  watchNpmParent(process.env, () => stop(NPM_GONE));
  const ignoresHangUp = isDetached();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, (signal) => {
      if (signal === 'SIGHUP' && ignoresHangUp) return;
      const atMs = Date.now();
      if (first === null) {
        first = { signal, atMs };
        stop(signal);
      } else if (atMs - first.atMs > SAME_SIGNAL_MS) daemon?.kill();
    });
  }
  const [{ loadConfig }, { startDaemon }] = await Promise.all([
    import('../config/load-config.js'),
    import('../start-daemon.js'),
  ]);
  const readConfig = () => loadConfig(flags, file ?? process.env.QWEN_SUPERVISOR_CONFIG, process.env);
  daemon = await startDaemon(readConfig, process.env, starting.signal).catch((error: unknown) => {
    if (stopReason === null || toCodedError(error).code !== 'SUPERVISOR_STOPPING') throw error;
    return null;
  });
  if (daemon === null) return;
  if (stopReason !== null) daemon.stop(stopReason);
  const error = await daemon.ended;
  if (error) throw CodedError.from(error);
}
