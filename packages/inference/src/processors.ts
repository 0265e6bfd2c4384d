/** What computes: which processors, and as many threads as this process may really use of them. */
import { arch, availableParallelism, cpus } from 'node:os';
import { readKernelFile } from '@qwen-supervisor/files/kernel-file';
import { processorQuota } from '@qwen-supervisor/files/processor-quota';

/** Which kind of processor: another may round otherwise. */
export function processorName(): string {
  return `${arch()}, ${cpus()[0]?.model ?? ''}`;
}

/** `wanted`: what the operator has set; 0 for as many as there are, which `sharers` workers have between them. */
export function threadCount(wanted: number, sharers = 1): number {
  const quota = processorQuota();
  const share = quota === null ? null : Math.ceil(quota);
  const possible = [availableParallelism(), share, cores()].filter((count) => count !== null);
  // Two threads on one core, or on a share of one, take turns.
  return wanted > 0 ? wanted : Math.max(1, Math.floor(Math.min(...possible) / sharers));
}

/** Without those that are two of one core; null where the system does not tell. */
function cores(): number | null {
  const places = readKernelFile('/proc/cpuinfo')
    .split('\n\n')
    .map((processor) => /^physical id\s*: (\d+)[\s\S]*^core id\s*: (\d+)/m.exec(processor))
    .flatMap((found) => (found ? [`${found[1]} ${found[2]}`] : []));
  return places.length > 0 ? new Set(places).size : null;
}
