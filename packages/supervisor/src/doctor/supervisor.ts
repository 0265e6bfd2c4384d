/** A supervisor that runs, and the service that starts it. */
import { existsSync, readFileSync } from 'node:fs';
import { VERSION } from '@qwen-supervisor/ipc/version';
import type { SystemStatus } from '@qwen-supervisor/protocol/status';
import type { ServiceState } from '../service/systemctl.js';
import { installedWith, type Scope } from '../service/units.js';
import { type Finding, fail, pass, warn } from './finding.js';

/** Of the one on this data folder; null where none runs. */
export function supervisorFinding(status: SystemStatus | null): Finding {
  if (status === null) return pass('supervisor', 'none runs here');
  const { version, pid } = status.supervisor;
  const who = `process ${pid}, version ${version}`;
  if (version !== VERSION)
    return fail(
      'supervisor',
      `${who}; version ${VERSION} is installed`,
      "start it anew: 'qwen-supervisor stop', then 'start', or restart the service",
    );
  const failed = status.children.filter(({ state }) => state === 'failed');
  if (failed.length > 0)
    return fail(
      'supervisor',
      `${who}: ${failed.map(({ name, reason }) => `${name}: ${reason}`).join('; ')}`,
      `mend that, then 'qwen-supervisor restart ${failed[0]?.name}'`,
    );
  if (status.queue.problem !== null)
    return fail(
      'supervisor',
      `${who}: the queue stands still: ${status.queue.problem}`,
      'mend that; it goes on by itself',
    );
  const restarts = status.children.reduce((sum, child) => sum + child.restarts, 0);
  if (restarts > 0)
    return warn(
      'supervisor',
      `${who}; its children were restarted ${restarts} times`,
      "'qwen-supervisor crashes' says why",
    );
  return pass('supervisor', `${who}; ${status.children.map(({ name, state }) => `${name} ${state}`).join(', ')}`);
}

/**
 * `unit`: file of a unit that is installed; null without one. `state`: null where systemd cannot be asked. `endsWith`:
 * the user with whose last session it ends; null where it does not.
 */
export function serviceFinding(
  unit: { path: string; scope: Scope } | null,
  state: ServiceState | null,
  endsWith: string | null,
): Finding {
  if (unit === null) return pass('service', 'none is installed');
  const { path, scope } = unit;
  const missing = installedWith(readFileSync(path, 'utf8'))?.program.find((one) => !existsSync(one));
  if (missing !== undefined)
    return fail('service', `${path} names ${missing}, which is gone`, "'qwen-supervisor service install' again");
  if (state === null) return warn('service', `${path} is there, and systemd cannot be asked`, 'log in as its user');
  const { active, result, restarts } = state;
  const journal = `'journalctl ${scope === 'user' ? '--user ' : ''}-u qwen-supervisor' says why`;
  if (active === 'failed') return fail('service', `failed: ${result}`, journal);
  if (active === 'inactive') return warn('service', 'is installed and does not run', 'systemctl start qwen-supervisor');
  if (restarts > 0) return warn('service', `${active}; systemd has restarted it ${restarts} times`, journal);
  if (endsWith !== null)
    return warn('service', `${active}; it ends when ${endsWith} logs out`, `loginctl enable-linger ${endsWith}`);
  return pass('service', active);
}
