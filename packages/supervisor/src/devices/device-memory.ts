/**
 * The memory of NVIDIA devices, as `nvidia-smi` tells it. A process that ends gives its device memory back only a
 * moment later, and a worker that is started too early, or beside a foreign process, fails for want of it.
 */
import type { DeviceMemory } from '../core/child.js';
import { askNvidia } from './nvidia-smi.js';

const MIB = 1 << 20;

interface Holder {
  pid: number;
  bytes: number;
  name: string;
}

/** What the process holds now of NVIDIA's card of this number, and what is free beside it; nothing without one. */
export async function measureDevice(pid: number, card: number | null): Promise<DeviceMemory> {
  if (card === null) return { heldBytes: 0, freeBytes: 0 };
  const [freeBytes, holders] = await Promise.all([free(card), listHolders(card)]);
  const heldBytes = holders.filter((holder) => holder.pid === pid).reduce((sum, { bytes }) => sum + bytes, 0);
  // Where the device does not tell what is free, nobody can wait until it is.
  return freeBytes === null ? { heldBytes: 0, freeBytes: 0 } : { heldBytes, freeBytes };
}

/** What is free now, null where the device does not tell; and who of others than `ours` has the most of the rest. */
export async function probeDevice(
  card: number | null,
  ours: readonly (number | null)[] = [],
): Promise<{ freeBytes: number | null; holder: string | null }> {
  if (card === null) return { freeBytes: null, holder: null };
  const [freeBytes, holders] = await Promise.all([free(card), listHolders(card)]);
  const [most] = holders.filter(({ pid }) => !ours.includes(pid)).sort((a, b) => b.bytes - a.bytes);
  const holder = most ? `process ${most.pid} (${most.name}, ${(most.bytes / 1e9).toFixed(1)} GB)` : null;
  return { freeBytes, holder };
}

/** Unified memory answers `[N/A]`: then it is not known. */
async function free(card: number): Promise<number | null> {
  const rows = await askNvidia('--query-gpu=memory.free', card);
  const mib = Number(rows?.[0] ?? Number.NaN);
  return Number.isFinite(mib) ? mib * MIB : null;
}

/** Names may hold commas, so that they stand last. */
async function listHolders(card: number): Promise<Holder[]> {
  const rows = (await askNvidia('--query-compute-apps=pid,used_memory,process_name', card)) ?? [];
  return rows.flatMap((row) => {
    const [, pid, mib, name = ''] = /^(\d+), *(\d+), *(.*)$/.exec(row) ?? [];
    return pid === undefined ? [] : [{ pid: Number(pid), bytes: Number(mib) * MIB, name }];
  });
}
