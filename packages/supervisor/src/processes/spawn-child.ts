/**
 * Starts and kills child processes. Each leads a process group of its own, so that a Ctrl+C reaches the supervisor
 * alone. On Linux the kernel ends them with the supervisor (PR_SET_PDEATHSIG, set by `setpriv` of util-linux before
 * it becomes the child), in the middle of a native call too.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TEMPORARY_FOLDER } from '@qwen-supervisor/protocol/data-files';
import { CHILD_ENV } from '@qwen-supervisor/protocol/messages';
import { type ChildName, type ChildRole, roleOfChild } from '@qwen-supervisor/protocol/status';
import { execa } from 'execa';
import treeKill from 'tree-kill';
import { readLines } from './child-output.js';
import { killDescendants } from './survivors.js';

export interface SpawnedChild {
  pid: number;
  /** Resolves when nothing more can come: after the exit, and later where a grandchild holds the pipes. */
  outputEnded: Promise<unknown>;
  /** SIGKILL to the group; `tree` also to descendants that left it. */
  kill(tree: boolean): void;
}

export interface SpawnOptions {
  name: ChildName;
  socket: string;
  token: string;
  dataDir: string;
  settings: unknown;
  /** Inherited as descriptors from 3 on. */
  fds: number[];
  /** Beyond what every child has. */
  env: Record<string, string>;
  onLine(stream: 'stdout' | 'stderr', line: string): void;
  /** On exit, not when the output closes: a grandchild that holds the pipe must not hide the death. */
  onExit(code: number | null, signal: string | null): void;
}

const ENTRY: Record<ChildRole, string> = {
  inference: fileURLToPath(import.meta.resolve('@qwen-supervisor/inference/worker')),
  api: fileURLToPath(import.meta.resolve('@qwen-supervisor/api/main')),
};

/** ONNX Runtime would tell its maker of every session, and write a log into a folder that all users share. */
export const QUIET = { ORT_DISABLE_TELEMETRY: '1' };

/**
 * The C library learns from what is freed how much to keep, up to 32 MB in a piece: a session's weights would stay in
 * this process after the session is gone. A fixed threshold ends that. Reference: mallopt(3), M_MMAP_THRESHOLD.
 */
const GIVES_BACK = { MALLOC_MMAP_THRESHOLD_: '262144' };

/** The way to the job database and to the bucket is the supervisor's alone. */
export const WITHOUT_KEYS = {
  PGPASSWORD: undefined,
  QWEN_SUPERVISOR_STORE: undefined,
  AWS_ACCESS_KEY_ID: undefined,
  AWS_SECRET_ACCESS_KEY: undefined,
};

/** The first of `fds` in the child. */
export const INHERITED_FD = 3;

const WITH_DEATH_SIGNAL = ['setpriv', '--pdeathsig', 'KILL', '--'];
/** A dump of a worker is as large as the model, takes as long to write, and holds prompts and keys. */
const WITHOUT_CORE_DUMPS = ['prlimit', '--core=0:'];
let launcher: string[] | null = null;

/** What stands before a child's command: nothing where the system cannot tie its life to ours. */
export function deathSignalLauncher(): string[] {
  const works = ([command = '', ...args]: string[]) =>
    spawnSync(command, [...args, 'true'], { stdio: 'ignore' }).status === 0;
  const candidates = [[...WITHOUT_CORE_DUMPS, ...WITH_DEATH_SIGNAL], WITH_DEATH_SIGNAL];
  launcher ??= candidates.find(works) ?? [];
  return launcher;
}

/** Null where no process could be made; `onExit` tells of that, too. */
export function spawnChild(options: SpawnOptions): SpawnedChild | null {
  const [command = '', ...args] = [...deathSignalLauncher(), process.execPath, ENTRY[roleOfChild(options.name)]];
  const subprocess = execa(command, args, {
    buffer: false,
    reject: false,
    cleanup: false,
    detached: true,
    // execa's types know no descriptor number beyond 2; at run time it hands it on to Node.
    stdio: ['ignore', 'pipe', 'pipe', ...options.fds.map((fd) => fd as unknown as 'inherit')],
    env: {
      ...QUIET,
      ...WITHOUT_KEYS,
      ...(options.name === 'api' ? {} : GIVES_BACK),
      ...options.env,
      TMPDIR: join(options.dataDir, TEMPORARY_FOLDER),
      [CHILD_ENV.socket]: options.socket,
      [CHILD_ENV.token]: options.token,
      [CHILD_ENV.dataDir]: options.dataDir,
      [CHILD_ENV.settings]: JSON.stringify(options.settings),
    },
  });
  subprocess.on('exit', (code, signal) => {
    // What the child has started ends with it, and no longer holds its pipes.
    if (subprocess.pid !== undefined) killGroup(subprocess.pid);
    setImmediate(() => killDescendants(options.token));
    options.onExit(code, signal);
  });
  const outputEnded = Promise.all([
    subprocess.stdout && readLines(subprocess.stdout, (line) => options.onLine('stdout', line)),
    subprocess.stderr && readLines(subprocess.stderr, (line) => options.onLine('stderr', line)),
  ]);
  const { pid } = subprocess;
  if (pid === undefined) {
    void subprocess.then((result) => {
      options.onLine('stderr', result.originalMessage ?? 'the process could not be spawned');
      options.onExit(null, null);
    });
    return null;
  }
  return { pid, outputEnded, kill: (tree) => (tree ? killTree(pid, options.token) : killGroup(pid)) };
}

/** On Linux by our own means: tree-kill asks `ps`, which a slim system does not have, and dies of that. */
function killTree(pid: number, token: string): void {
  if (process.platform === 'linux') {
    killGroup(pid);
    killDescendants(token);
  } else treeKill(pid, 'SIGKILL', () => {});
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
