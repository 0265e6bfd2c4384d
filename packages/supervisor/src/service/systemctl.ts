/** Orders to systemd. */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { execa } from 'execa';
import { type Scope, UNIT } from './units.js';

/** What systemd says of the service. */
export interface ServiceState {
  /** `active`, `activating`, `failed`, … */
  active: string;
  sub: string;
  /** What the supervisor has told it last. */
  text: string;
  pid: number | null;
  /** Starts by systemd after an end that nobody had asked for. */
  restarts: number;
  /** How the last one ended: `success`, `exit-code`, `watchdog`, … */
  result: string;
}

/** Standard output. @throws CodedError SYSTEMD_MISSING, SYSTEMD_REFUSED */
export async function systemctl(scope: Scope, ...words: string[]): Promise<string> {
  const args = scope === 'user' ? ['--user', ...words] : words;
  const { failed, code, stdout, stderr, shortMessage } = await execa('systemctl', args, { reject: false });
  if (code === 'ENOENT') throw new CodedError('SYSTEMD_MISSING', 'there is no systemctl on this machine');
  if (failed) {
    const said = stderr.trim().replaceAll('\n', ' ') || (shortMessage ?? '');
    if (/not been booted with systemd|Failed to connect to .*bus/.test(said))
      throw new CodedError('SYSTEMD_MISSING', said);
    throw new CodedError('SYSTEMD_REFUSED', `systemctl ${args.join(' ')}: ${said}`);
  }
  return stdout;
}

const PROPERTIES = ['ActiveState', 'SubState', 'StatusText', 'MainPID', 'NRestarts', 'Result'];

/** @throws CodedError SYSTEMD_MISSING, SYSTEMD_REFUSED */
export async function serviceState(scope: Scope): Promise<ServiceState> {
  const output = await systemctl(scope, 'show', `${UNIT}.service`, `--property=${PROPERTIES.join(',')}`);
  const values = Object.fromEntries(output.split('\n').map((line) => line.split(/=(.*)/s, 2)));
  return {
    active: values.ActiveState ?? 'unknown',
    sub: values.SubState ?? 'unknown',
    text: values.StatusText ?? '',
    pid: Number(values.MainPID) || null,
    restarts: Number(values.NRestarts) || 0,
    result: values.Result ?? '',
  };
}

/** Whether the services of this user go on when they log out; null where it cannot be asked. Reference: loginctl(1). */
export async function lingers(username: string): Promise<boolean | null> {
  const { stdout, failed } = await execa('loginctl', ['show-user', username, '--property=Linger'], { reject: false });
  return failed ? null : stdout === 'Linger=yes';
}
