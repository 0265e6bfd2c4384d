/** Starts and kills child processes. Each leads a process group of its own, so that a Ctrl+C reaches the supervisor alone. */
import { fileURLToPath } from 'node:url';
import { CHILD_ENV } from '@qwen-supervisor/protocol/messages';
import type { ChildName } from '@qwen-supervisor/protocol/status';
import { execa } from 'execa';
import treeKill from 'tree-kill';

/** Longest line of a child's output that is kept, bytes; the rest of it is dropped. */
const LINE_MAX = 8192;

export interface SpawnedChild {
  pid: number;
  /** SIGKILL to the group; `tree` also to descendants that left it. */
  kill(tree: boolean): void;
}

export interface SpawnOptions {
  name: ChildName;
  socket: string;
  token: string;
  settings: unknown;
  /** Inherited as descriptor 3. */
  fd: number | null;
  onLine(stream: 'stdout' | 'stderr', line: string): void;
  /** On exit, not when the output closes: a grandchild that holds the pipe must not hide the death. */
  onExit(code: number | null, signal: string | null): void;
}

const ENTRY: Record<ChildName, string> = {
  inference: fileURLToPath(import.meta.resolve('@qwen-supervisor/inference/worker')),
  api: fileURLToPath(import.meta.resolve('@qwen-supervisor/api/main')),
};

/** Descriptor number of `fd` in the child. */
export const INHERITED_FD = 3;

/** Null where no process could be made; `onExit` tells of that, too. */
export function spawnChild(options: SpawnOptions): SpawnedChild | null {
  const subprocess = execa(process.execPath, [ENTRY[options.name]], {
    buffer: false,
    reject: false,
    cleanup: false,
    detached: true,
    // execa's types know no descriptor number beyond 2; at run time it hands it on to Node.
    stdio: ['ignore', 'pipe', 'pipe', ...(options.fd === null ? [] : [options.fd as unknown as 'inherit'])],
    env: {
      [CHILD_ENV.socket]: options.socket,
      [CHILD_ENV.token]: options.token,
      [CHILD_ENV.settings]: JSON.stringify(options.settings),
    },
  });
  subprocess.on('exit', (code, signal) => options.onExit(code, signal));
  readLines(subprocess.stdout, (line) => options.onLine('stdout', line));
  readLines(subprocess.stderr, (line) => options.onLine('stderr', line));
  const { pid } = subprocess;
  if (pid === undefined) {
    void subprocess.then((result) => {
      options.onLine('stderr', result.originalMessage ?? 'the process could not be spawned');
      options.onExit(null, null);
    });
    return null;
  }
  return { pid, kill: (tree) => killGroup(pid, tree) };
}

function killGroup(pid: number, tree: boolean): void {
  // The tree first: a dead parent no longer leads to its descendants.
  if (tree) treeKill(pid, 'SIGKILL', () => {});
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

function readLines(stream: NodeJS.ReadableStream | null | undefined, onLine: (line: string) => void): void {
  let pending = '';
  let dropping = false;
  stream?.setEncoding('utf8');
  stream?.on('data', (chunk: string) => {
    const parts = chunk.split('\n');
    parts.forEach((part, index) => {
      const ends = index < parts.length - 1;
      if (!dropping) pending += part;
      if (pending.length > LINE_MAX) {
        pending = `${pending.slice(0, LINE_MAX)} …`;
        dropping = true;
      }
      if (!ends) return;
      if (pending !== '') onLine(pending);
      pending = '';
      dropping = false;
    });
  });
  stream?.on('end', () => {
    if (pending !== '') onLine(pending);
  });
}
