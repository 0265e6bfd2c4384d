/** What `bench --probe` measured on the devices of this machine, kept for the plan of a model. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { replaceFile } from '@qwen-supervisor/files/replace-file';
import { PROBES_FILE } from '@qwen-supervisor/protocol/data-files';
import { z } from 'zod';
import type { BlockProbe } from './probe-block.js';

const kept = z.object({
  device: z.string(),
  name: z.string(),
  driver: z.string().nullable(),
  compute: z.string(),
  blocks: z.array(z.object({ side: z.number(), operationsPerSecond: z.number().positive() })).min(1),
});
type Kept = z.infer<typeof kept>;
/** Which device, and what it was driven by: another driver may be faster, or slower. */
type Which = Pick<Kept, 'device' | 'name' | 'driver'>;

/**
 * One of each device: the last. Into a folder that is there: who makes it decides whose it is.
 * @throws Error of the file system
 */
export async function keepProbe(dataDir: string, probe: BlockProbe): Promise<void> {
  const others = readProbes(dataDir).filter((one) => !isSame(one, probe));
  await replaceFile(join(dataDir, PROBES_FILE), Buffer.from(JSON.stringify([...others, probe])));
}

/**
 * What was measured on this very card with this driver; null where nothing was, or not in what is computed in now:
 * `compute` is null where that is not known.
 */
export function keptProbe(dataDir: string, device: Which, compute: string | null): Kept | null {
  const probe = readProbes(dataDir).find((one) => isSame(one, device)) ?? null;
  return probe !== null && compute !== null && probe.compute !== compute ? null : probe;
}

function isSame(a: Which, b: Which): boolean {
  return a.device === b.device && a.name === b.name && a.driver === b.driver;
}

/** A file that is not there, or is none of ours, is as good as none: what it says can be measured again. */
function readProbes(dataDir: string): Kept[] {
  try {
    return z.array(kept).parse(JSON.parse(readFileSync(join(dataDir, PROBES_FILE), 'utf8')));
  } catch {
    return [];
  }
}
