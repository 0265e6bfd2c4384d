/** The processes of the children: spawned with a token that only they know, their output captured, their exits told. */
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import type { ApiSettings, WorkerSettings } from '@qwen-supervisor/protocol/messages';
import type { ChildName } from '@qwen-supervisor/protocol/status';
import type { Logger } from 'pino';
import { ChildOutput } from './child-output.js';
import { countOomKills } from './oom-kills.js';
import { type SpawnedChild, spawnChild } from './spawn-child.js';
import { threadStates } from './thread-states.js';

/** How long the last lines of a dead child are waited for: a grandchild may hold its pipes for ever. */
const LAST_LINES_MS = 500;
/** How long a dead child's connection may stay open before its exit counts without its last words. */
const LAST_WORDS_MS = 100;

export interface Exit {
  code: number | null;
  signal: string | null;
  /** The kernel killed somebody for want of memory since the child's last sign of life. */
  oomKilled: boolean;
}

/** One process of a child. */
export interface Incarnation {
  name: ChildName;
  number: number;
}

export class Processes {
  /** `socketPath`: where a child that is spawned now finds us. */
  readonly #parts: { socketPath(): string; dataDir: string; log: Logger };
  readonly #onExit: (child: Incarnation, exit: Exit) => void;
  readonly #processes = new Map<ChildName, SpawnedChild>();
  readonly #outputs = new Map<ChildName, { output: ChildOutput; ended: Promise<unknown>; threads: string[] }>();
  /** The kernel's counts at the last two signs of life, the older first: the last may be read after the kill. */
  readonly #oomKills = new Map<ChildName, [number | null, number | null]>();
  readonly #tokens = new Map<string, Incarnation>();
  /** Children whose connection is open, and what waits for its end. */
  readonly #connections = new Map<ChildName, { number: number; onEnd(): void }>();

  constructor(
    parts: { socketPath(): string; dataDir: string; log: Logger },
    onExit: (child: Incarnation, exit: Exit) => void,
  ) {
    this.#parts = parts;
    this.#onExit = onExit;
  }

  /**
   * The process id; null where nothing could be spawned (no memory, the program is gone): its exit is told like any
   * other.
   */
  spawn(
    child: Incarnation,
    settings: ApiSettings | WorkerSettings,
    fds: number[],
    env: Record<string, string> = {},
  ): number | null {
    const { name } = child;
    const { log, dataDir } = this.#parts;
    const token = randomBytes(16).toString('hex');
    this.#tokens.set(token, child);
    const killed = countOomKills();
    this.#oomKills.set(name, [killed, killed]);
    const output = new ChildOutput(
      (stream, line) => log.info({ child: name, stream }, line),
      (lines) => log.warn({ child: name }, `${lines} lines of its output were dropped: too many at once`),
      performance.now(),
    );
    const spawned = spawnChild({
      name,
      socket: this.#parts.socketPath(),
      token,
      dataDir,
      settings,
      fds,
      env,
      onLine: (stream, line) => output.line(stream, line, performance.now()),
      onExit: (code, signal) => {
        this.#tokens.delete(token);
        this.#processes.delete(name);
        const [before] = this.#oomKills.get(name) ?? [null];
        const oomKilled = before !== null && (countOomKills() ?? 0) > before;
        this.#afterLastWords(child, () => this.#onExit(child, { code, signal, oomKilled }));
      },
    });
    const ended = (spawned?.outputEnded ?? Promise.resolve()).then(() => output.tellDropped());
    this.#outputs.set(name, { output, ended, threads: [] });
    if (!spawned) return null;
    this.#processes.set(name, spawned);
    if (name !== 'api') preferForOomKill(spawned.pid);
    return spawned.pid;
  }

  /** A child gives a sign of life: whatever the kernel had killed at the one before, it was not this one. */
  beat(name: ChildName): void {
    const [, last = null] = this.#oomKills.get(name) ?? [];
    this.#oomKills.set(name, [last, countOomKills()]);
  }

  connected({ name, number }: Incarnation): void {
    this.#connections.set(name, { number, onEnd: () => {} });
  }

  /** Everything that the child has sent is received. */
  disconnected({ name, number }: Incarnation): void {
    const connection = this.#connections.get(name);
    if (connection?.number !== number) return;
    this.#connections.delete(name);
    connection.onEnd();
  }

  /** What a child said last (its fault, its result) counts before its exit. */
  #afterLastWords(child: Incarnation, tellExit: () => void): void {
    const connection = this.#connections.get(child.name);
    if (connection?.number !== child.number) return tellExit();
    // Where this process itself was late, what has been sent by then is read first.
    const timer = setTimeout(() => setImmediate(() => this.disconnected(child)), LAST_WORDS_MS);
    connection.onEnd = () => {
      clearTimeout(timer);
      tellExit();
    };
  }

  /** Who was given this token; a dead process's is void. */
  find(token: string): Incarnation | null {
    return this.#tokens.get(token) ?? null;
  }

  kill(name: ChildName, tree: boolean): void {
    this.#processes.get(name)?.kill(tree);
  }

  /** Keeps where the threads of a child that hangs stand, for the record of its end. */
  noteThreads(name: ChildName): void {
    const pid = this.#processes.get(name)?.pid;
    const captured = this.#outputs.get(name);
    if (pid !== undefined && captured) captured.threads = threadStates(pid);
  }

  killAll(): void {
    for (const child of this.#processes.values()) child.kill(true);
  }

  /** What is known of the end of the process that was spawned last. */
  async lastWords(name: ChildName): Promise<{ threads: string[]; tail: string[] }> {
    const captured = this.#outputs.get(name);
    if (!captured) return { threads: [], tail: [] };
    await Promise.race([captured.ended, new Promise((resolve) => setTimeout(resolve, LAST_LINES_MS))]);
    return { threads: captured.threads, tail: captured.output.tail };
  }
}

/**
 * When memory runs out the kernel takes the process with the highest score: the worker, which resumes, and not the
 * supervisor. Reference: proc(5), oom_score_adj.
 */
function preferForOomKill(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, '500');
  } catch (error) {
    // No Linux, or gone already.
    if (!['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}
