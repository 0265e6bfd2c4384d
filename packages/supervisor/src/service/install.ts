/** Where the units of the service lie, what is in them, and how they get there. */
import { chownSync, existsSync, mkdirSync, readFileSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { homedir, networkInterfaces } from 'node:os';
import { join, resolve } from 'node:path';
import { CONFIG_KEYS, type ConfigKey } from '@qwen-supervisor/protocol/config';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { execa } from 'execa';
import { readKeysFile } from '../config/keys-file.js';
import { COMMAND_LINE, ENVIRONMENT, loadExplained } from '../config/load-config.js';
import { readPresence } from '../machine/data-folder.js';
import { requireServable } from '../machine/http-port.js';
import { processState } from '../machine/process-state.js';
import { serviceState, systemctl } from './systemctl.js';
import {
  installedWith,
  MARK,
  type Scope,
  type Service,
  SYSTEM_DATA_DIR,
  serviceUnit,
  socketUnit,
  UNIT,
} from './units.js';

/** Flags that are of the service, and not of `start`. */
export type ServiceWishes = { system?: boolean; as?: string; socket?: boolean };

export function folderOf(scope: Scope): string {
  if (scope === 'system') return '/etc/systemd/system';
  return join(process.env.XDG_CONFIG_HOME || join(homedir(), '.config'), 'systemd/user');
}

/** The unit of this program that is there; null without one. */
export function installedUnit(): { scope: Scope; path: string } | null {
  const units = (['user', 'system'] as const).map((scope) => ({
    scope,
    path: join(folderOf(scope), `${UNIT}.service`),
  }));
  return units.find(({ path }) => existsSync(path)) ?? null;
}

/** Of the units that are there and that we have written. @throws CodedError SERVICE_NOT_INSTALLED, SERVICE_FOREIGN */
export function ours(scope: Scope): { name: string; path: string }[] {
  const found = [`${UNIT}.service`, `${UNIT}.socket`]
    .map((name) => ({ name, path: join(folderOf(scope), name) }))
    .filter(({ path }) => existsSync(path));
  if (found.length === 0) throw new CodedError('SERVICE_NOT_INSTALLED', `there is no unit in ${folderOf(scope)}`);
  for (const { path } of found) requireOurs(path);
  return found;
}

/** @throws CodedError SERVICE_FOREIGN */
function requireOurs(path: string): void {
  if (!readFileSync(path, 'utf8').startsWith(MARK))
    throw new CodedError('SERVICE_FOREIGN', `${path} was not written by this program`);
}

/** What is not said now is as it was at the installation before. @throws CodedError USAGE_INVALID, CONFIG_*, … */
export function unitsFor({ system, as, socket, config: file, ...flags }: ServiceWishes & Record<string, string>) {
  const scope: Scope = system ? 'system' : 'user';
  const path = join(folderOf(scope), `${UNIT}.service`);
  const before = existsSync(path) ? installedWith(readFileSync(path, 'utf8')) : null;
  const user = as ?? before?.as ?? null;
  if ((scope === 'system') !== (user !== null))
    throw new CodedError(
      'USAGE_INVALID',
      user === null
        ? `--system: name the user that it runs as with --as; 'useradd --system --user-group ${UNIT}' makes one`
        : '--as: is for a service of the machine, with --system',
    );
  const configFile = file ?? before?.config ?? process.env.QWEN_SUPERVISOR_CONFIG ?? null;
  const given = {
    ...(scope === 'system' ? { 'data-dir': SYSTEM_DATA_DIR } : {}),
    ...before?.settings,
    ...flags,
  };
  const { config, origins } = loadExplained(given, configFile ?? undefined, process.env);
  const keys = readKeysFile(config['keys-file']);
  requireServable(config.host, keys.length > 0 || config.keyless === 'anywhere');
  // What the file says stays there; what was said here and now has to be said each time.
  const said = (key: ConfigKey) => key === 'data-dir' || origins[key] === COMMAND_LINE || origins[key] === ENVIRONMENT;
  const settings = Object.fromEntries(CONFIG_KEYS.filter(said).map((key) => [key, String(config[key])]));
  const words = [
    ...(configFile === null ? [] : ['--config', resolve(configFile)]),
    ...Object.entries(settings).flatMap(([key, value]) => [`--${key}`, value]),
  ];
  const hasSocket = socket ?? before?.socket ?? false;
  const listen = hasSocket ? addressesOf(config.host, config.port) : null;
  const program = programPaths();
  const service: Service = {
    scope,
    user,
    groups: scope === 'system' ? groupsOfCards() : [],
    program,
    flags: words,
    dataDir: config['data-dir'],
    listen,
    needsNetwork: !LOCAL.includes(config.host),
    nvidiaModprobe: existsSync(NVIDIA_MODPROBE) ? NVIDIA_MODPROBE : null,
    installed: { as: user, socket: hasSocket, config: configFile && resolve(configFile), settings, program },
  };
  const units: Record<string, string> = { [`${UNIT}.service`]: serviceUnit(service) };
  if (listen) units[`${UNIT}.socket`] = socketUnit(listen);
  const host = config.host.includes(':') ? `[${config.host}]` : config.host;
  return { service, units, url: `http://${host}:${config.port}` };
}

const LOCAL = ['localhost', '127.0.0.1', '::1'];
const NVIDIA_MODPROBE = '/usr/bin/nvidia-modprobe';

/**
 * Whether the user of a service of the machine is there and can run it, before anything is written; its data folder is
 * made. @throws CodedError USAGE_INVALID, DATA_DIR_UNUSABLE, PROGRAM_NOT_INSTALLED
 */
export async function prepareForUser({ user, program, flags, dataDir }: Service): Promise<void> {
  if (user === null) return;
  const idOf = async (flag: string) =>
    Number((await execa('id', [flag, user], { reject: false })).stdout || Number.NaN);
  const [uid, gid] = [await idOf('-u'), await idOf('-g')];
  if (Number.isNaN(uid)) throw new CodedError('USAGE_INVALID', `--as: there is no user '${user}'`);
  // The default one is systemd's to make.
  if (dataDir !== SYSTEM_DATA_DIR) {
    if (!existsSync(dataDir)) {
      mkdirSync(dataDir, { recursive: true, mode: 0o700 });
      chownSync(dataDir, uid, gid);
    }
    const owner = statSync(dataDir).uid;
    if (owner !== uid) throw new CodedError('DATA_DIR_UNUSABLE', `${dataDir} belongs to user ${owner}, not to ${user}`);
  }
  const asUser = ['--reuid', String(uid), '--regid', String(gid), '--init-groups'];
  const { failed, stderr, shortMessage } = await execa(
    'setpriv',
    [...asUser, ...program, 'config', 'check', ...flags],
    {
      reject: false,
      cwd: '/',
    },
  );
  if (failed)
    throw new CodedError('PROGRAM_NOT_INSTALLED', `${user} cannot run it: ${stderr.split('\n')[0] || shortMessage}`);
}

/** @throws CodedError USAGE_INVALID */
function addressesOf(host: string, port: number): string[] {
  if (port === 0) throw new CodedError('USAGE_INVALID', '--socket: systemd needs a port, not 0');
  if (host !== 'localhost') return [host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`];
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  const hasSix = all.some(({ address }) => address === '::1');
  return [`127.0.0.1:${port}`, ...(hasSix ? [`[::1]:${port}`] : [])];
}

/** By these names distributions let users at graphics cards. */
function groupsOfCards(): string[] {
  const groups = readFileSync('/etc/group', 'utf8');
  return ['render', 'video'].filter((name) => new RegExp(`^${name}:`, 'm').test(groups));
}

/** @throws CodedError PROGRAM_NOT_INSTALLED */
function programPaths(): [string, string] {
  const bin = realpathSync(process.argv[1] as string);
  if (/[/\\]_npx[/\\]/.test(bin))
    throw new CodedError('PROGRAM_NOT_INSTALLED', `${bin} is in a folder that npx empties when it likes`);
  return [process.execPath, bin];
}

/** One that was started by hand keeps its folder to itself. @throws CodedError ALREADY_RUNNING, SYSTEMD_* */
async function requireFree(scope: Scope, dataDir: string): Promise<void> {
  const other = readPresence(dataDir);
  if (other === null || processState(other.pid) === null) return;
  if (other.pid !== (await serviceState(scope)).pid)
    throw new CodedError(
      'ALREADY_RUNNING',
      `${dataDir} is in use by process ${other.pid}, ${other.url}: stop it first`,
    );
}

/** Writes the units and starts them. @throws CodedError ALREADY_RUNNING, SERVICE_*, SYSTEMD_*, OUTPUT_UNWRITABLE */
export async function install(
  { scope, dataDir }: Service,
  units: Record<string, string>,
  tell: (line: string) => void,
): Promise<void> {
  await requireFree(scope, dataDir);
  const folder = folderOf(scope);
  for (const name of [`${UNIT}.service`, `${UNIT}.socket`])
    if (existsSync(join(folder, name))) requireOurs(join(folder, name));
  // Before anything is written: is there one that listens?
  await systemctl(scope, 'daemon-reload');
  if (!units[`${UNIT}.socket`] && existsSync(join(folder, `${UNIT}.socket`))) {
    await systemctl(scope, 'disable', '--now', `${UNIT}.socket`);
    rmSync(join(folder, `${UNIT}.socket`));
  }
  try {
    mkdirSync(folder, { recursive: true });
    for (const [name, text] of Object.entries(units)) {
      writeFileSync(join(folder, name), text, { mode: 0o644 });
      tell(`wrote ${join(folder, name)}`);
    }
  } catch (cause) {
    throw new CodedError('OUTPUT_UNWRITABLE', `${folder}: ${(cause as Error).message}`, { cause });
  }
  await systemctl(scope, 'daemon-reload');
  // The socket first: a service that runs without it has the port.
  if (units[`${UNIT}.socket`]) await systemctl(scope, 'stop', `${UNIT}.service`);
  const names = Object.keys(units).sort().reverse();
  await systemctl(scope, 'enable', ...names);
  for (const name of names) await systemctl(scope, 'restart', name);
}
