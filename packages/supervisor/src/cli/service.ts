import { rmSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { ERRORS } from '@qwen-supervisor/protocol/errors';
import type { Command } from 'commander';
import { folderOf, install, ours, prepareForUser, type ServiceWishes, unitsFor } from '../service/install.js';
import { lingers, serviceState, systemctl } from '../service/systemctl.js';
import { type Scope, UNIT } from '../service/units.js';
import { print, printError } from './printer.js';
import { type Settings, withSettings } from './settings.js';
import { whileWaiting } from './while-waiting.js';

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
    .option('--json', 'print one JSON object')
    .action(async ({ json, ...options }: ServiceWishes & Settings) => {
      const { service, units, url } = unitsFor(options);
      const { scope } = service;
      await prepareForUser(service);
      const installing = install(service, units, json ? printError : print);
      await whileWaiting(() => 'systemd starts it', installing);
      if (json) return print(JSON.stringify({ scope, units: Object.keys(units), flags: service.flags, url }));
      print(`with ${service.flags.join(' ')}`);
      print(`${scope === 'user' ? 'your' : 'the'} service runs: ${url}/app/`);
      if (scope === 'user') await remindOfLinger();
    });

  withUnits(service.command('print'))
    .description('what install would write')
    .option('--json', 'print one JSON object')
    .action(({ json, ...options }: ServiceWishes & Settings) => {
      const { service, units } = unitsFor(options);
      if (json) return print(JSON.stringify({ scope: service.scope, units }));
      const texts = Object.entries(units).map(([name, text]) => `# ${join(folderOf(service.scope), name)}\n${text}`);
      print(texts.join('\n').trimEnd());
    });

  withScope(service.command('uninstall'))
    .description('stop it and remove its units; jobs, pictures and models stay')
    .option('--json', 'print one JSON object')
    .action(async ({ json, ...options }: ServiceWishes & { json?: boolean }) => {
      const scope = scopeOf(options);
      const paths = ours(scope);
      const disabling = systemctl(scope, 'disable', '--now', ...paths.map(({ name }) => name));
      await whileWaiting(() => 'systemd stops it', disabling);
      for (const { path } of paths) rmSync(path);
      await systemctl(scope, 'daemon-reload');
      if (json) return print(JSON.stringify({ removed: paths.map(({ path }) => path) }));
      print(`removed ${paths.map(({ path }) => path).join(' and ')}; the data folder is as it was`);
    });

  withScope(service.command('status'))
    .description('what systemd says of it')
    .option('--json', 'print one JSON object')
    .action(async ({ json, ...options }: ServiceWishes & { json?: boolean }) => {
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

function scopeOf({ system }: ServiceWishes): Scope {
  return system ? 'system' : 'user';
}

/** Without it the services of a user end with the last session. */
async function remindOfLinger(): Promise<void> {
  const { username } = userInfo();
  if (!(await lingers(username)))
    printError(`note: it ends when you log out; 'loginctl enable-linger ${username}' keeps it, and starts it at boot`);
}
