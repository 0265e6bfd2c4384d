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

/** What the process holds now, and what is free beside it; nothing without a device. */
export async function measureDevice(pid: number): Promise<DeviceMemory> {
  const [freeBytes, holders] = await Promise.all([free(), listHolders()]);
  const heldBytes = holders.filter((holder) => holder.pid === pid).reduce((sum, { bytes }) => sum + bytes, 0);
  // Where the device does not tell what is free, nobody can wait until it is.
  return freeBytes === null ? { heldBytes: 0, freeBytes: 0 } : { heldBytes, freeBytes };
}

/** What is free now, null where the device does not tell; and who has the most of the rest. */
export async function probeDevice(): Promise<{ freeBytes: number | null; holder: string | null }> {
  const [freeBytes, holders] = await Promise.all([free(), listHolders()]);
  const [most] = holders.sort((a, b) => b.bytes - a.bytes);
  const holder = most ? `process ${most.pid} (${most.name}, ${(most.bytes / 1e9).toFixed(1)} GB)` : null;
  return { freeBytes, holder };
}

/** Unified memory answers `[N/A]`: then it is not known. */
async function free(): Promise<number | null> {
  const rows = await askNvidia('--query-gpu=memory.free');
  const mib = rows?.map(Number);
  if (!mib || mib.length === 0 || mib.some((value) => !Number.isFinite(value))) return null;
  return mib.reduce((sum, value) => sum + value * MIB, 0);
}

/** Names may hold commas, so that they stand last. */
async function listHolders(): Promise<Holder[]> {
  const rows = (await askNvidia('--query-compute-apps=pid,used_memory,process_name')) ?? [];
  return rows.flatMap((row) => {
    const [, pid, mib, name = ''] = /^(\d+), *(\d+), *(.*)$/.exec(row) ?? [];
    return pid === undefined ? [] : [{ pid: Number(pid), bytes: Number(mib) * MIB, name }];
  });
}
