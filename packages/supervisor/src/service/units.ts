/**
 * The units under which systemd runs the supervisor, as text. Pure. Reference: systemd.service(5), systemd.exec(5),
 * systemd.socket(5), systemd.syntax(7).
 */
import { ERRORS } from '@qwen-supervisor/protocol/errors';

/** `user`: of whoever installs it, from login on. `system`: of the machine, from boot on, under its own user. */
export type Scope = 'user' | 'system';

export interface Service {
  scope: Scope;
  /** Who it runs as; null for whoever's manager it is. */
  user: string | null;
  /** Groups that may use graphics cards. */
  groups: string[];
  /** Whole paths of Node and of the program. */
  program: [node: string, bin: string];
  /** What follows `start`. */
  flags: string[];
  dataDir: string;
  /** Addresses of a socket unit, as `127.0.0.1:8000`; null without one. */
  listen: string[] | null;
  /** It listens beyond this machine: its addresses must be there first. */
  needsNetwork: boolean;
  /** NVIDIA's program that makes the devices of its cards; null where it is not there. */
  nvidiaModprobe: string | null;
  installed: Installed;
}

/** With what it was installed: the next installation begins with it. */
export interface Installed {
  as: string | null;
  socket: boolean;
  config: string | null;
  /** By their keys, as text. */
  settings: Record<string, string>;
  program: [node: string, bin: string];
}

const INSTALLED = '# Installed with: ';

/** Of a unit that `serviceUnit` has made; null of any other. */
export function installedWith(unit: string): Installed | null {
  const line = unit.split('\n').find((one) => one.startsWith(INSTALLED));
  return line === undefined ? null : (JSON.parse(line.slice(INSTALLED.length)) as Installed);
}

export const UNIT = 'qwen-supervisor';
/** By it a unit is known as ours. */
export const MARK = '# Written by qwen-supervisor service install; "qwen-supervisor service uninstall" removes it.';
/** Where a service of the system keeps its things, if nobody names a folder. */
export const SYSTEM_DATA_DIR = `/var/lib/${UNIT}`;

/** Ends that no restart mends: the operator has to act. */
const FINAL = [
  'USAGE_INVALID',
  'CONFIG_INVALID',
  'CONFIG_UNREADABLE',
  'KEYS_FILE_INVALID',
  'HOST_REFUSED',
  'ALREADY_RUNNING',
  'MODEL_INVALID',
  'MODEL_TRUNCATED',
  'MODEL_UNSUPPORTED',
] as const;

export function serviceUnit(service: Service): string {
  const { scope, program, flags, dataDir, listen, needsNetwork, installed } = service;
  const isSystem = scope === 'system';
  const [node, bin] = program;
  // In the first word no variable is looked for.
  const command = (...words: string[]) => [word(node), ...[bin, ...words].map(argument)].join(' ');
  const finals = [...new Set(FINAL.map((code) => ERRORS[code].exit))].sort((a, b) => a - b);
  return lines([
    MARK,
    `${INSTALLED}${JSON.stringify(installed)}`,
    '[Unit]',
    'Description=Qwen-Image server (qwen-supervisor)',
    isSystem && 'After=network.target remote-fs.target',
    isSystem && needsNetwork && 'Wants=network-online.target',
    isSystem && needsNetwork && 'After=network-online.target',
    listen && `Requires=${UNIT}.socket`,
    'StartLimitIntervalSec=3600',
    'StartLimitBurst=100',
    '',
    '[Service]',
    'Type=notify',
    '# The messages go through systemd-notify, a process of its own.',
    'NotifyAccess=all',
    `ExecStart=${command('start', ...flags)}`,
    `ExecReload=${command('reload', '--data-dir', dataDir)}`,
    'Restart=on-failure',
    'RestartSec=5',
    '# Settings and checkpoints that are not valid do not become so by another start.',
    `RestartPreventExitStatus=${finals.join(' ')}`,
    'TimeoutStartSec=300',
    'TimeoutStopSec=30',
    '# Only the supervisor is told to stop; it stops its children, in their order.',
    'KillMode=mixed',
    'WatchdogSec=60',
    '# The kernel takes the worker alone, which is started again; otherwise systemd would end the whole service.',
    'OOMPolicy=continue',
    'LimitCORE=0',
    'UMask=0077',
    ...(isSystem ? systemLines(service) : []),
    'NoNewPrivileges=yes',
    'RestrictNamespaces=yes',
    'RestrictRealtime=yes',
    'RestrictSUIDSGID=yes',
    'LockPersonality=yes',
    '# Netlink for the list of network interfaces.',
    'RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK',
    'SystemCallArchitectures=native',
    '# No MemoryDenyWriteExecute: Node compiles as it runs.',
    '',
    '[Install]',
    `WantedBy=${isSystem ? 'multi-user.target' : 'default.target'}`,
  ]);
}

/** What only the manager of the system can do. */
function systemLines({ user, groups, dataDir, nvidiaModprobe }: Service): string[] {
  const isDefault = dataDir === SYSTEM_DATA_DIR;
  return lines([
    user !== null && `User=${user}`,
    groups.length > 0 && `SupplementaryGroups=${groups.join(' ')}`,
    isDefault ? `StateDirectory=${UNIT}` : `ReadWritePaths=${word(dataDir)}`,
    isDefault && 'StateDirectoryMode=0700',
    // With its own rights alone the service cannot have the devices made.
    nvidiaModprobe !== null && `ExecStartPre=+-${word(nvidiaModprobe)} -u -c=0`,
    `CacheDirectory=${UNIT}`,
    'CacheDirectoryMode=0700',
    `Environment=XDG_CACHE_HOME=%C/${UNIT} CUDA_CACHE_PATH=%C/${UNIT}/cuda`,
    `RuntimeDirectory=${UNIT}`,
    'RuntimeDirectoryMode=0700',
    `Environment=XDG_RUNTIME_DIR=%t/${UNIT}`,
    'PrivateTmp=yes',
    'ProtectSystem=strict',
    'ProtectHome=read-only',
    'ProtectKernelTunables=yes',
    'ProtectKernelModules=yes',
    'ProtectKernelLogs=yes',
    'ProtectControlGroups=yes',
    // No ProtectClock: it allows the clock's device, and with that forbids those of graphics cards.

    'ProtectHostname=yes',
    'ProtectProc=invisible',
    'CapabilityBoundingSet=',
    'AmbientCapabilities=',
    'SystemCallFilter=@system-service',
    'SystemCallErrorNumber=EPERM',
  ])
    .trimEnd()
    .split('\n');
}

/** The port outlives the supervisor, too: while it is started anew the kernel keeps the connections. */
export function socketUnit(listen: readonly string[]): string {
  return lines([
    MARK,
    '[Unit]',
    'Description=Port of the Qwen-Image server (qwen-supervisor)',
    '',
    '[Socket]',
    ...listen.map((address) => `ListenStream=${address}`),
    '# An address that is not there yet can be bound, too: at boot, sockets are made before the network is up.',
    'FreeBind=yes',
    listen.length > 1 && 'BindIPv6Only=ipv6-only',
    'Backlog=4096',
    '',
    '[Install]',
    'WantedBy=sockets.target',
  ]);
}

function lines(parts: (string | false | null)[]): string {
  return `${parts.filter((part) => part !== false && part !== null).join('\n')}\n`;
}

/** A word of a command. Reference: systemd.service(5), "Command lines". */
function argument(text: string): string {
  return word(text.replaceAll('$', '$$$$'));
}

/** A word of a list. Reference: systemd.syntax(7), "Quoting", and systemd.unit(5), "Specifiers". */
function word(text: string): string {
  const escaped = text.replaceAll('%', '%%');
  if (/^[\w./:=@+,%$-]+$/.test(escaped)) return escaped;
  return `"${escaped.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')}"`;
}
