/** Where a supervisor keeps its things, and how others find it. */
import { createHash } from 'node:crypto';
import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { readRegular } from '@qwen-supervisor/files/read-regular';
import {
  CHECKPOINTS_FOLDER,
  IMAGES_FOLDER,
  INPUTS_FOLDER,
  TEMPORARY_FOLDER,
} from '@qwen-supervisor/protocol/data-files';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { z } from 'zod';

/** Longest path that a Unix socket address holds, bytes. */
const SOCKET_PATH_MAX = 107;
/** Bytes of what a supervisor writes down of itself. */
const PRESENCE_MAX = 64 << 10;

export function defaultDataDir(env: NodeJS.ProcessEnv): string {
  return join(env.XDG_DATA_HOME || join(homedir(), '.local', 'share'), 'qwen-supervisor');
}

/** Below the data folder; nobody else has a use for them. */
const PRIVATE_FOLDERS = ['logs', 'cache', TEMPORARY_FOLDER, IMAGES_FOLDER, INPUTS_FOLDER, CHECKPOINTS_FOLDER];
const PRIVATE_FILES = ['jobs.db', 'jobs.db-wal', 'jobs.db-shm', 'jobs.db-journal', 'supervisor.json'];

/**
 * Makes the folder if needed and checks that it can be written to. What is in it is closed to others, also where an
 * earlier start has left it open; the folder itself is as its owner made it. @throws CodedError DATA_DIR_UNUSABLE
 */
export function prepareDataDir(path: string): string {
  try {
    for (const folder of [path, ...PRIVATE_FOLDERS.map((name) => join(path, name))]) {
      makeFolder(folder);
      accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK);
    }
    for (const name of PRIVATE_FOLDERS) closeToOthers(join(path, name), 0o700);
    for (const name of PRIVATE_FILES) if (existsSync(join(path, name))) closeToOthers(join(path, name), 0o600);
    return realpathSync(path);
  } catch (cause) {
    throw new CodedError('DATA_DIR_UNUSABLE', `${path}: ${(cause as Error).message}`, { cause });
  }
}

/** What children that were killed have put aside. Call it only while holding the data folder. */
export function emptyTemporaryFolder(dataDir: string): void {
  const folder = join(dataDir, TEMPORARY_FOLDER);
  for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true, force: true });
}

/** File systems without modes refuse, and have nothing to close. */
function closeToOthers(path: string, mode: number): void {
  try {
    if ((lstatSync(path).mode & 0o777 & ~mode) !== 0) chmodSync(path, mode);
  } catch (error) {
    if (!['EPERM', 'ENOTSUP', 'ENOSYS'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

/**
 * Makes the folder of the control socket and gives the socket's path: in the user's runtime folder, under a short name,
 * because a path below the data folder may be longer than a socket address can hold; there only where other users, or
 * what is left of another session, keep us out of the shared ones.
 * @throws CodedError RUNTIME_DIR_UNUSABLE
 */
export function prepareSocket(dataDir: string, env: NodeJS.ProcessEnv): string {
  const name = `${createHash('sha256').update(dataDir).digest('hex').slice(0, 16)}.sock`;
  const own = `qwen-supervisor-${process.getuid?.() ?? 'user'}`;
  const folders = [
    ...(env.XDG_RUNTIME_DIR ? [join(env.XDG_RUNTIME_DIR, 'qwen-supervisor')] : []),
    join(tmpdir(), own),
    join('/tmp', own),
    join(dataDir, 'run'),
  ];
  const problems: string[] = [];
  for (const folder of folders) {
    const path = join(folder, name);
    const problem =
      Buffer.byteLength(path) > SOCKET_PATH_MAX ? `${path} is too long for a socket` : makePrivateFolder(folder);
    if (problem === null) return path;
    problems.push(problem);
  }
  throw new CodedError('RUNTIME_DIR_UNUSABLE', [...new Set(problems)].join('; '));
}

/** Null where it is ours alone now; else why it cannot be. */
function makePrivateFolder(folder: string): string | null {
  try {
    // Its parent is whatever the session has; it is not made for one that has none.
    if (isFolder(dirname(folder))) mkdirSync(folder, { mode: 0o700 });
    else return `${dirname(folder)} is not there`;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'EEXIST') return message;
  }
  try {
    // Not where a link leads: who made that?
    const stats = lstatSync(folder);
    const uid = process.getuid?.();
    if (!stats.isDirectory()) return `${folder} is no folder`;
    if (uid !== undefined && stats.uid !== uid) return `${folder} belongs to user ${stats.uid}, not to you`;
    chmodSync(folder, 0o700);
    accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

/** What a running supervisor writes down for the commands that want to reach it. */
export interface Presence {
  pid: number;
  socket: string;
  url: string;
}

const presenceSchema = z.object({ pid: z.int().min(1), socket: z.string(), url: z.string() });

export function writePresence(dataDir: string, presence: Presence): void {
  writeFileSync(presenceFile(dataDir), `${JSON.stringify(presence)}\n`, { mode: 0o600 });
}

export function removePresence(dataDir: string): void {
  rmSync(presenceFile(dataDir), { force: true });
}

/**
 * Null where none was written; a supervisor that was killed leaves its own behind. @throws CodedError DATA_DIR_UNUSABLE
 */
export function readPresence(dataDir: string): Presence | null {
  try {
    const { bytes } = readRegular(presenceFile(dataDir), PRESENCE_MAX);
    return presenceSchema.safeParse(JSON.parse(bytes.toString('utf8'))).data ?? null;
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '') || error instanceof SyntaxError)
      return null;
    throw new CodedError('DATA_DIR_UNUSABLE', `${dataDir}: ${(error as Error).message}`, { cause: error });
  }
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
