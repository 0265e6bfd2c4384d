/** How commands reach a running supervisor. */
import { connectIpc } from '@qwen-supervisor/ipc/connect';
import type { Link } from '@qwen-supervisor/ipc/link';
import { VERSION } from '@qwen-supervisor/ipc/version';
import type { Config, ExplainedConfig } from '@qwen-supervisor/protocol/config';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { NumberedEvent } from '@qwen-supervisor/protocol/events';
import type { ClientMethods, SupervisorMethods, Welcome } from '@qwen-supervisor/protocol/messages';
import type { Command } from 'commander';
import { loadConfig, loadExplained } from '../config/load-config.js';
import { readPresence } from '../machine/data-folder.js';
import { processState } from '../machine/process-state.js';
import type { Settings } from './settings.js';

export interface Client {
  link: Link<SupervisorMethods, ClientMethods>;
  welcome: Welcome;
  /** Of the supervisor. */
  pid: number;
  dataDir: string;
}

/** A supervisor that lives answers in milliseconds; on a busy machine in some hundreds of them. */
const ANSWER_MS = 8000;

/** What a supervisor of this process id answers. @throws CodedError SUPERVISOR_SILENT where it does not */
export async function answered<T>(pid: number, answer: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      const state = processState(pid);
      const what = state === null ? 'is gone' : `is there and does not answer; it is ${state}`;
      reject(new CodedError('SUPERVISOR_SILENT', `the supervisor (process ${pid}) ${what}`));
    }, ANSWER_MS);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** What comes unasked. */
export interface Listener {
  event(event: NumberedEvent): void;
  /** Some events were too many for us. */
  missed(): void;
  workerFailed(reason: string): void;
}

const SILENT: Listener = { event() {}, missed() {}, workerFailed() {} };

/** Adds the flag that every command takes. */
export function withDataDir(command: Command): Command {
  return command.option('--data-dir <folder>', 'data folder of the supervisor');
}

/** The configuration that a start with this flag, and `others`, would have. @throws CodedError CONFIG_* */
export function configOf(options: { dataDir?: string }, others: Record<string, string> = {}): Config {
  const flags = { ...(options.dataDir === undefined ? {} : { 'data-dir': options.dataDir }), ...others };
  return loadConfig(flags, process.env.QWEN_SUPERVISOR_CONFIG, process.env);
}

/** The configuration that a start with these flags, here and now, would have. @throws CodedError CONFIG_* */
export function explained({ config: file, ...flags }: Settings): ExplainedConfig {
  return loadExplained(flags, file ?? process.env.QWEN_SUPERVISOR_CONFIG, process.env);
}

/** The data folder from the flag, the environment or the configuration. */
export function dataDirOf(options: { dataDir?: string }): string {
  return configOf(options)['data-dir'];
}

/** `anyVersion`: for what every version understands. @throws CodedError NOT_RUNNING, VERSION_MISMATCH */
export async function connect(dataDir: string, on: Listener = SILENT, anyVersion = false): Promise<Client> {
  const presence = readPresence(dataDir);
  if (!presence) throw new CodedError('NOT_RUNNING', `no supervisor runs on ${dataDir}`);
  const { pid } = presence;
  const connecting = connectIpc<SupervisorMethods, ClientMethods>(presence.socket, () => ({
    event: on.event,
    missed: on.missed,
    workerFailed: ({ reason }) => on.workerFailed(reason),
    welcome: () => {},
    shutdown: () => {},
  }));
  const link = await answered(pid, connecting);
  const hello = { role: 'cli', pid: process.pid, token: null, version: VERSION } as const;
  const welcome = await answered(pid, link.request('hello', hello)).catch((error: unknown) => {
    // An open connection would keep this process alive.
    link.close();
    throw error;
  });
  if (welcome.version !== VERSION && !anyVersion) {
    link.close();
    throw new CodedError('VERSION_MISMATCH', `this command is version ${VERSION}, the supervisor ${welcome.version}`);
  }
  return { link, welcome, pid, dataDir };
}

/**
 * Asks the running supervisor one thing and hangs up, also when it refuses. @throws CodedError NOT_RUNNING, or of the
 * answer
 */
export async function ask<T>(
  options: { dataDir?: string },
  question: (client: Client) => Promise<T>,
  anyVersion = false,
): Promise<T> {
  const client = await connect(dataDirOf(options), undefined, anyVersion);
  try {
    return await answered(client.pid, question(client));
  } finally {
    client.link.close();
  }
}

/** The number of a flag like `--lines`. @throws CodedError USAGE_INVALID */
export function countOf(text: string): number {
  const count = Number(text);
  if (!Number.isInteger(count) || count < 0) throw new CodedError('USAGE_INVALID', `--lines: '${text}' is no number`);
  return count;
}

/** Of the supervisor that runs; null where none does. */
export async function askRunning<T>(dataDir: string, ask: (client: Client) => Promise<T>): Promise<T | null> {
  const client = await connect(dataDir).catch((error: unknown) => {
    if (error instanceof CodedError && error.code === 'NOT_RUNNING') return null;
    throw error;
  });
  if (!client) return null;
  try {
    return await answered(client.pid, ask(client));
  } finally {
    client.link.close();
  }
}
