/**
 * The graphics cards of this machine: what the kernel shows of them, and what NVIDIA's own tool adds.
 *
 * Sources: `/sys/class/drm/renderD*`, one for each card that can compute, with its memory; `nvidia-smi`.
 */
import { accessSync, constants, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { askNvidia } from './nvidia-smi.js';

export interface Card {
  /** On the PCI bus: `0000:01:00.0`. */
  slot: string;
  /** Hexadecimal, of the PCI bus: `10de`. */
  vendorId: string;
  deviceId: string;
  name: string;
  /** Name of the kernel's driver, and its version where that is known; null without one. */
  driver: string | null;
  /** Of its own, bytes; null where it has none, or does not tell. */
  memoryBytes: number | null;
  freeBytes: number | null;
  /** What the kernel's driver is asked through, where this user may not open it; NVIDIA's own driver asks otherwise. */
  closedNode: string | null;
  /**
   * What CUDA needs to know; null where it is no NVIDIA card, or NVIDIA's driver does not answer. CUDA knows it by
   * `index`, NVIDIA's tool by `number`.
   */
  cuda: { index: number; number: number; computeCapability: number; driver: string } | null;
}

const VENDORS: Record<string, string> = { '1002': 'AMD', '10de': 'NVIDIA', '8086': 'Intel' };
const MIB = 1 << 20;
/** Less than that no card has on which this model is drawn, and a processor's graphics may have set aside. */
const OWN_MEMORY_MIN = 3 * 2 ** 30;
const PREFETCHABLE = 0x2000;

/** In the order in which WebGPU and CUDA are asked for them: by place on the bus. `root`: where `/sys` lies. */
export async function readCards(env: NodeJS.ProcessEnv, root = '/'): Promise<Card[]> {
  const all = await nvidiaCards();
  const ofNvidia = visibleOf(all, env.CUDA_VISIBLE_DEVICES).map(({ card }) => card);
  const isHidden = ({ slot }: Card) => all.some(({ card }) => card.slot === slot);
  const seen = drmCards(root).flatMap(
    (card) => ofNvidia.find(({ slot }) => slot === card.slot) ?? (isHidden(card) ? [] : card),
  );
  // In a container the kernel's view may be missing.
  const others = ofNvidia.filter(({ slot }) => !seen.some((card) => card.slot === slot));
  return [...seen, ...others].sort((a, b) => a.slot.localeCompare(b.slot));
}

function drmCards(root: string): Card[] {
  const folder = join(root, 'sys/class/drm');
  const names = listed(folder).filter((name) => /^renderD\d+$/.test(name));
  return names.flatMap((name) => {
    const read = (file: string) => readText(join(folder, name, 'device', file));
    const id = (file: string) => /^0x([0-9a-f]{4})$/.exec(read(file))?.[1];
    const [vendorId, deviceId, uevent] = [id('vendor'), id('device'), read('uevent')];
    const slot = /^PCI_SLOT_NAME=(\S+)$/m.exec(uevent)?.[1];
    // Without an address it is of the simulated ones (vgem), or on a board without a bus.
    if (!vendorId || !deviceId || !slot) return [];
    const memoryBytes = ownMemory(read);
    const freeBytes =
      memoryBytes === null ? Number.NaN : memoryBytes - Number(read('mem_info_vram_used') || Number.NaN);
    return [
      {
        slot,
        vendorId,
        deviceId,
        name: `${VENDORS[vendorId] ?? `vendor ${vendorId}`} ${deviceId}`,
        driver: /^DRIVER=(\S+)$/m.exec(uevent)?.[1] ?? null,
        memoryBytes,
        freeBytes: Number.isFinite(freeBytes) ? freeBytes : null,
        closedNode: mayOpen(join(root, 'dev/dri', name)) ? null : join(root, 'dev/dri', name),
        cuda: null,
      },
    ];
  });
}

/**
 * What the kernel's driver tells (amdgpu, xe); else the largest window on the bus that may be read ahead, which is all
 * of a card's memory where it can be (Resizable BAR, which Intel's Arc asks for). Null for what a processor's own
 * graphics have set aside: they use the machine's. Reference: Linux, `pci_resource`, `IORESOURCE_PREFETCH`.
 */
function ownMemory(read: (file: string) => string): number | null {
  const windows = read('resource')
    .split('\n')
    .map((line) => line.split(' ').map(Number))
    .filter(([, , flags = 0]) => (flags & PREFETCHABLE) !== 0)
    .map(([start = 0, end = 0]) => end - start + 1);
  const told = read('mem_info_vram_total') || read('tile0/physical_vram_size_bytes');
  const bytes = told ? Number(told) : Math.max(0, ...windows);
  return bytes >= OWN_MEMORY_MIN ? bytes : null;
}

function mayOpen(node: string): boolean {
  try {
    accessSync(node, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    // Not ours, or not there, as in a container that was not given it.
    return false;
  }
}

/** Numbers that a card does not tell are `[N/A]`. */
async function nvidiaCards(): Promise<{ uuid: string; card: Card }[]> {
  const fields = 'index,uuid,pci.bus_id,pci.device_id,memory.total,memory.free,compute_cap,driver_version,name';
  const rows = (await askNvidia(`--query-gpu=${fields}`)) ?? [];
  return rows.flatMap((row) => {
    const [index, uuid = '', bus, ids, total, free, capability, driver, ...name] = row.split(', ');
    const slot = /^0*([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])$/i.exec(bus ?? '')?.[1]?.toLowerCase();
    if (slot === undefined || name.length === 0) return [];
    const bytes = (mib: string | undefined) => (Number.isFinite(Number(mib)) ? Number(mib) * MIB : null);
    const cuda = { index: Number(index), number: Number(index), computeCapability: Number(capability) };
    const card: Card = {
      slot,
      vendorId: '10de',
      deviceId: /^0x([0-9a-f]{4})10de$/i.exec(ids ?? '')?.[1]?.toLowerCase() ?? '',
      name: name.join(', '),
      driver: `nvidia ${driver}`,
      memoryBytes: bytes(total),
      freeBytes: bytes(free),
      closedNode: null,
      cuda: { ...cuda, driver: driver ?? '' },
    };
    return [{ uuid, card }];
  });
}

/**
 * Those that CUDA shows to a process with this CUDA_VISIBLE_DEVICES, by which a cluster gives cards out: numbers, or
 * beginnings of UUIDs, in the order in which they are counted; the first that names no card ends the list. Reference:
 * CUDA C++ Programming Guide, "CUDA Environment Variables".
 */
function visibleOf(all: { uuid: string; card: Card }[], wish: string | undefined): { uuid: string; card: Card }[] {
  // Slices of a card (MIG) have names of their own, which nvidia-smi does not list here.
  if (wish === undefined || wish.includes('MIG-')) return all;
  const named = wish.split(',').map((text) => {
    const word = text.trim();
    return all.find(
      ({ uuid, card }) => String(card.cuda?.number) === word || (word.startsWith('GPU-') && uuid.startsWith(word)),
    );
  });
  const end = named.indexOf(undefined);
  const visible = (end < 0 ? named : named.slice(0, end)) as typeof all;
  return visible.map(({ uuid, card }, index) => ({
    uuid,
    card: { ...card, cuda: card.cuda && { ...card.cuda, index } },
  }));
}

function listed(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    // Not there, or not for us: no card that could be used.
    return [];
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
}
