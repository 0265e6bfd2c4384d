/** Where a supervisor keeps its things, and how others find it. */
import { createHash } from 'node:crypto';
import { accessSync, constants, mkdirSync, readFileSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { CHECKPOINTS_FOLDER, IMAGES_FOLDER, INPUTS_FOLDER } from '@qwen-supervisor/protocol/data-files';
import { CodedError } from '@qwen-supervisor/protocol/errors';

/** Longest path that a Unix socket address holds, bytes. */
const SOCKET_PATH_MAX = 107;

export function defaultDataDir(env: NodeJS.ProcessEnv): string {
  return join(env.XDG_DATA_HOME || join(homedir(), '.local', 'share'), 'qwen-supervisor');
}

/** Makes the folder if needed and checks that it can be written to. @throws CodedError DATA_DIR_UNUSABLE */
export function prepareDataDir(path: string): string {
  try {
    const folders = [
      path,
      ...['logs', IMAGES_FOLDER, INPUTS_FOLDER, CHECKPOINTS_FOLDER].map((name) => join(path, name)),
    ];
    for (const folder of folders) {
      makeFolder(folder);
      accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK);
    }
    return realpathSync(path);
  } catch (cause) {
    throw new CodedError('DATA_DIR_UNUSABLE', `${path}: ${(cause as Error).message}`, { cause });
  }
}

/** Makes the folder of the control socket and gives the socket's path. @throws CodedError RUNTIME_DIR_UNUSABLE */
export function prepareSocket(dataDir: string, env: NodeJS.ProcessEnv): string {
  const path = socketPath(dataDir, env);
  const folder = dirname(path);
  try {
    makeFolder(folder);
    accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (cause) {
    throw new CodedError('RUNTIME_DIR_UNUSABLE', `${folder}: ${(cause as Error).message}`, { cause });
  }
  const owner = statSync(folder).uid;
  if (process.getuid && owner !== process.getuid()) {
    throw new CodedError('RUNTIME_DIR_UNUSABLE', `${folder} belongs to user ${owner}, not to you`);
  }
  return path;
}

/**
 * The control socket of a data folder: in the user's runtime folder, under a short name, because a path below the data
 * folder may be longer than a socket address can hold.
 * @throws CodedError RUNTIME_DIR_UNUSABLE
 */
function socketPath(dataDir: string, env: NodeJS.ProcessEnv): string {
  const name = `${createHash('sha256').update(dataDir).digest('hex').slice(0, 16)}.sock`;
  const own = `qwen-supervisor-${process.getuid?.() ?? 'user'}`;
  const runtime = env.XDG_RUNTIME_DIR;
  const candidates = [
    ...(runtime && isFolder(runtime) ? [join(runtime, 'qwen-supervisor', name)] : []),
    join(tmpdir(), own, name),
    join('/tmp', own, name),
  ];
  const path = candidates.find((candidate) => Buffer.byteLength(candidate) <= SOCKET_PATH_MAX);
  if (!path) throw new CodedError('RUNTIME_DIR_UNUSABLE', `${candidates[0]} is too long for a socket`);
  return path;
}

/** What a running supervisor writes down for the commands that want to reach it. */
export interface Presence {
  pid: number;
  socket: string;
  url: string;
}

export function writePresence(dataDir: string, presence: Presence): void {
  writeFileSync(presenceFile(dataDir), `${JSON.stringify(presence)}\n`, { mode: 0o600 });
}

export function removePresence(dataDir: string): void {
  rmSync(presenceFile(dataDir), { force: true });
}

/** Null where none was written; a supervisor that was killed leaves its own behind. */
export function readPresence(dataDir: string): Presence | null {
  try {
    return JSON.parse(readFileSync(presenceFile(dataDir), 'utf8')) as Presence;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || error instanceof SyntaxError) return null;
    throw new CodedError('DATA_DIR_UNUSABLE', `${dataDir}: ${(error as Error).message}`, { cause: error });
  }
}

export function logFile(dataDir: string): string {
  return join(dataDir, 'logs', 'supervisor.log');
}

/**
 * Not `recursive: true`, which never returns where a parent cannot be made although it exists (below /proc, for one).
 */
function makeFolder(path: string): void {
  if (isFolder(path)) return;
  makeFolder(dirname(path));
  mkdirSync(path, { mode: 0o700 });
}

function presenceFile(dataDir: string): string {
  return join(dataDir, 'supervisor.json');
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
