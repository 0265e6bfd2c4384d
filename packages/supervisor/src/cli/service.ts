import { chownSync, existsSync, mkdirSync, readFileSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { homedir, networkInterfaces, userInfo } from 'node:os';
import { join, resolve } from 'node:path';
import { CONFIG_KEYS, type ConfigKey } from '@qwen-supervisor/protocol/config';
import { CodedError, ERRORS } from '@qwen-supervisor/protocol/errors';
import type { Command } from 'commander';
import { execa } from 'execa';
import { readKeysFile } from '../config/keys-file.js';
import { COMMAND_LINE, ENVIRONMENT, loadExplained } from '../config/load-config.js';
import { requireServable } from '../machine/http-port.js';
import { serviceState, systemctl } from '../service/systemctl.js';
import {
  installedWith,
  MARK,
  type Scope,
  type Service,
  SYSTEM_DATA_DIR,
  serviceUnit,
  socketUnit,
  UNIT,
} from '../service/units.js';
import { print, printError } from './printer.js';
import { type Settings, withSettings } from './settings.js';

type Options = { system?: boolean; as?: string; socket?: boolean };

export function addService(program: Command): void {
  const service = program.command('service').description('run it under systemd: from login or from boot on');
  const withScope = (command: Command) =>
    command.option('--system', 'the service of the machine; without it that of your user');
  const withUnits = (command: Command) =>
    withSettings(withScope(command))
      .option('--as <user>', 'who a service of the machine runs as')
      .option('--socket', 'let systemd hold the port: no client is refused while the service is started anew');

  withUnits(service.command('install'))
    .description("write the units and start them, with the settings of 'start' with these flags, and those of before")
    .action(async (options: Options & Settings) => {
      const { service, units, url } = unitsFor(options);
      const { scope } = service;
      await prepareForUser(service);
      await install(scope, units);
      print(`with ${service.flags.join(' ')}`);
      print(`${scope === 'user' ? 'your' : 'the'} service runs: ${url}/app/`);
      if (scope === 'user') await remindOfLinger();
    });

  withUnits(service.command('print'))
    .description('what install would write')
    .action((options: Options & Settings) => {
      const { service, units } = unitsFor(options);
      const texts = Object.entries(units).map(([name, text]) => `# ${join(folderOf(service.scope), name)}\n${text}`);
      print(texts.join('\n').trimEnd());
    });

  withScope(service.command('uninstall'))
    .description('stop it and remove its units; jobs, pictures and models stay')
    .action(async (options: Options) => {
      const scope = scopeOf(options);
      const paths = ours(scope);
      await systemctl(scope, 'disable', '--now', ...paths.map(({ name }) => name));
      for (const { path } of paths) rmSync(path);
      await systemctl(scope, 'daemon-reload');
      print(`removed ${paths.map(({ path }) => path).join(' and ')}; the data folder is as it was`);
    });

  withScope(service.command('status'))
    .description('what systemd says of it')
    .option('--json', 'print one JSON object')
    .action(async ({ json, ...options }: Options & { json?: boolean }) => {
      const scope = scopeOf(options);
      const units = ours(scope).map(({ path }) => path);
      const state = await serviceState(scope);
      const { active, sub, text, pid, restarts, result } = state;
      if (active !== 'active') process.exitCode = ERRORS.NOT_RUNNING.exit;
      if (json) return print(JSON.stringify({ scope, units, ...state }));
      const last = result === 'success' ? '' : `, the last one ended by ${result}`;
      print(`${active} (${sub})${text && `: ${text}`}`);
      print(`process ${pid ?? 'none'}, ${restarts} restarts by systemd${last}`);
      print(`units ${units.join(' ')}`);
      print(`log   journalctl ${scope === 'user' ? '--user ' : ''}-u ${UNIT}`);
    });
}

function scopeOf({ system }: Options): Scope {
  return system ? 'system' : 'user';
}

function folderOf(scope: Scope): string {
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
function ours(scope: Scope): { name: string; path: string }[] {
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
function unitsFor({ system, as, socket, config: file, ...flags }: Options & Settings) {
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
async function prepareForUser({ user, program, flags, dataDir }: Service): Promise<void> {
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

/** @throws CodedError SERVICE_FOREIGN, SYSTEMD_*, OUTPUT_UNWRITABLE */
async function install(scope: Scope, units: Record<string, string>): Promise<void> {
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
      print(`wrote ${join(folder, name)}`);
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

/** Without it the services of a user end with the last session. Reference: loginctl(1). */
async function remindOfLinger(): Promise<void> {
  const { username } = userInfo();
  const { stdout } = await execa('loginctl', ['show-user', username, '--property=Linger'], { reject: false });
  if (stdout !== 'Linger=yes')
    printError(`note: it ends when you log out; 'loginctl enable-linger ${username}' keeps it, and starts it at boot`);
}
