/** The port: is it free, and if not, who has it? */
import { listKernelFolder, readKernelFile, readKernelLink } from '@qwen-supervisor/files/kernel-file';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { bindHttpPort } from '../machine/http-port.js';
import { type Finding, fail, pass } from './finding.js';

/** `ownPid`: of the supervisor that runs and may have it; null without one. `open` as in `bindHttpPort`. */
export function portFinding(host: string, port: number, open: boolean, ownUrl: string | null): Finding {
  if (ownUrl !== null) return pass('port', `${ownUrl} is served`);
  try {
    bindHttpPort(host, port, open).close();
    return pass('port', `${port} of ${host} is free`);
  } catch (error) {
    if (!(error instanceof CodedError)) throw error;
    const holder = error.code === 'PORT_IN_USE' ? holderOf(port) : null;
    const by = holder === null ? '' : `: ${holder.name} (process ${holder.pid})`;
    const step = holder === null ? error.hint : `end it, or take another port: --port ${port + 1}`;
    return fail('port', `${error.message}${by}`, step);
  }
}

/** State of a listening socket. Reference: the kernel's include/net/tcp_states.h. */
const LISTEN = '0A';

/** Who listens on a port, as far as we may see. Reference: proc(5), `/proc/net/tcp`, `/proc/PID/fd`. */
function holderOf(port: number): { pid: string; name: string } | null {
  const hex = port.toString(16).toUpperCase().padStart(4, '0');
  const sockets = ['/proc/net/tcp', '/proc/net/tcp6']
    .flatMap((file) => readKernelFile(file).split('\n').slice(1))
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local, , state]) => local?.endsWith(`:${hex}`) && state === LISTEN)
    .map((fields) => `socket:[${fields[9]}]`);
  if (sockets.length === 0) return null;
  const pids = listKernelFolder('/proc').filter((name) => /^\d+$/.test(name));
  const pid = pids.find((one) => descriptors(one).some((target) => sockets.includes(target)));
  return pid === undefined ? null : { pid, name: readKernelFile(`/proc/${pid}/comm`).trim() };
}

function descriptors(pid: string): string[] {
  return listKernelFolder(`/proc/${pid}/fd`).map((fd) => readKernelLink(`/proc/${pid}/fd/${fd}`));
}
