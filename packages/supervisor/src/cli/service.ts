import { existsSync, mkdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, networkInterfaces, userInfo } from 'node:os';
import { join, resolve } from 'node:path';
import { CONFIG_KEYS, type ConfigKey } from '@qwen-supervisor/protocol/config';
import { CodedError, ERRORS } from '@qwen-supervisor/protocol/errors';
import type { Command } from 'commander';
import { execa } from 'execa';
import { readKeysFile } from '../config/keys-file.js';
import { COMMAND_LINE, ENVIRONMENT, loadExplained } from '../config/load-config.js';
import { serviceState, systemctl } from '../service/systemctl.js';
import { MARK, type Scope, type Service, SYSTEM_DATA_DIR, serviceUnit, socketUnit, UNIT } from '../service/units.js';
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
    .description("write the units and start them, with the settings that 'start' with these flags would have")
    .action(async (options: Options & Settings) => {
      const { scope, units, url } = unitsFor(options);
      await install(scope, units);
      print(`${scope === 'user' ? 'your' : 'the'} service runs: ${url}/app/`);
      if (scope === 'user') await remindOfLinger();
    });

  withUnits(service.command('print'))
    .description('what install would write')
    .action((options: Options & Settings) => {
      const { scope, units } = unitsFor(options);
      const texts = Object.entries(units).map(([name, text]) => `# ${join(folderOf(scope), name)}\n${text}`);
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

/** @throws CodedError USAGE_INVALID, CONFIG_*, KEYS_FILE_INVALID, PROGRAM_NOT_INSTALLED */
function unitsFor({ system, as, socket, config: file, ...flags }: Options & Settings) {
  const scope: Scope = system ? 'system' : 'user';
  if (scope === 'system' && as === undefined)
    throw new CodedError(
      'USAGE_INVALID',
      `--system: name the user that it runs as with --as; 'useradd --system --user-group ${UNIT}' makes one`,
    );
  const configFile = file ?? process.env.QWEN_SUPERVISOR_CONFIG;
  const given = scope === 'system' ? { 'data-dir': SYSTEM_DATA_DIR, ...flags } : flags;
  const { config, origins } = loadExplained(given, configFile, process.env);
  readKeysFile(config['keys-file']);
  // What the file says stays there; what was said here and now has to be said each time.
  const said = (key: ConfigKey) => key === 'data-dir' || origins[key] === COMMAND_LINE || origins[key] === ENVIRONMENT;
  const words = [
    ...(configFile ? ['--config', resolve(configFile)] : []),
    ...CONFIG_KEYS.filter(said).flatMap((key) => [`--${key}`, String(config[key])]),
  ];
  const listen = socket ? addressesOf(config.host, config.port) : null;
  const service: Service = {
    scope,
    user: scope === 'system' ? (as as string) : null,
    groups: scope === 'system' ? groupsOfCards() : [],
    program: programPaths(),
    flags: words,
    dataDir: config['data-dir'],
    listen,
  };
  const units: Record<string, string> = { [`${UNIT}.service`]: serviceUnit(service) };
  if (listen) units[`${UNIT}.socket`] = socketUnit(listen);
  const host = config.host.includes(':') ? `[${config.host}]` : config.host;
  return { scope, units, url: `http://${host}:${config.port}` };
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
