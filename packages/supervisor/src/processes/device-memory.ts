/**
 * The memory of NVIDIA devices, as `nvidia-smi` tells it. A process that ends gives its device memory back only a moment
 * later, and a worker that is started too early, or beside a foreign process, fails for want of it.
 */
import { execa } from 'execa';

/** Answers slower than this are no answers. */
const ANSWER_LIMIT_MS = 5000;
/** So much of what the process before held must be free again. */
const RELEASED_SHARE = 0.75;
const MIB = 1 << 20;

interface Holder {
  pid: number;
  bytes: number;
  name: string;
}

export class DeviceMemory {
  #atReady = { freeBytes: 0, heldBytes: 0 };

  /** Bytes that the process holds now; 0 without a device. */
  async measure(pid: number): Promise<number> {
    const [freeBytes, holders] = await Promise.all([free(), listHolders()]);
    const heldBytes = holders.filter((holder) => holder.pid === pid).reduce((sum, { bytes }) => sum + bytes, 0);
    this.#atReady = { freeBytes: freeBytes ?? 0, heldBytes };
    return heldBytes;
  }

  /** Whether what was measured is free again, and who has the most of it if not. */
  async probe(): Promise<{ free: boolean; holder: string | null }> {
    const [freeBytes, holders] = await Promise.all([free(), listHolders()]);
    const { freeBytes: freeAtReady, heldBytes } = this.#atReady;
    // A device that does not answer cannot keep anybody waiting.
    if (freeBytes === null || freeBytes >= freeAtReady + RELEASED_SHARE * heldBytes)
      return { free: true, holder: null };
    const [most] = holders.sort((a, b) => b.bytes - a.bytes);
    const holder = most ? `process ${most.pid} (${most.name}, ${(most.bytes / 1e9).toFixed(1)} GB)` : null;
    return { free: false, holder };
  }
}

async function free(): Promise<number | null> {
  const rows = await ask('--query-gpu=memory.free');
  return rows?.reduce((sum, [mib]) => sum + Number(mib) * MIB, 0) ?? null;
}

async function listHolders(): Promise<Holder[]> {
  const rows = (await ask('--query-compute-apps=pid,used_memory,process_name')) ?? [];
  return rows.map(([pid, mib, name]) => ({ pid: Number(pid), bytes: Number(mib) * MIB, name: name ?? '' }));
}

/** Null where there is no such program, or it fails. */
async function ask(query: string): Promise<string[][] | null> {
  const { stdout, failed } = await execa('nvidia-smi', [query, '--format=csv,noheader,nounits'], {
    reject: false,
    timeout: ANSWER_LIMIT_MS,
    stdin: 'ignore',
  });
  if (failed) return null;
  return stdout
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => line.split(',').map((field) => field.trim()));
}
