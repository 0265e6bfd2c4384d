/** What a machine could compute pictures with, and what is missing where it cannot. Pure. */
import { delimiter } from 'node:path';
import type { Config } from '@qwen-supervisor/protocol/config';
import { listOfDevices, parseDevice } from '@qwen-supervisor/protocol/device';
import { CHILD_ENV } from '@qwen-supervisor/protocol/messages';
import type { Card } from './cards.js';
import type { Vulkan } from './vulkan.js';

/** What was found on a machine. */
export interface Found {
  cards: Card[];
  /** Whether there may be others, which are not for us. */
  hidesCards: boolean;
  vulkan: Vulkan;
  /** What a process has in its environment that computes with CUDA; null where its libraries are not installed. */
  cudaEnv: Record<string, string> | null;
  /** What a card may compute in. */
  precision: 'auto' | 'float32';
  processor: string;
  /** Of the machine, bytes. */
  memoryBytes: number;
}

export interface Device {
  /** `cpu`, `cuda:0`, `webgpu:0`. */
  device: string;
  name: string;
  driver: string | null;
  /** Of a card, its own, or null where it has none that is known; of the processor, the machine's. */
  memoryBytes: number | null;
  freeBytes: number | null;
  /** Why it cannot be used, and what to do about it; null where nothing is known to be missing. */
  missing: { what: string; step: string } | null;
  /** What a process that computes on it has in its environment. */
  env: Record<string, string>;
  /** Place of the card on the PCI bus, by which one is known that shows as two devices; null for none that is known. */
  slot: string | null;
  /** Maker and model, by which Vulkan chooses; null where they are not known. */
  model: string | null;
  /** Number by which NVIDIA's tool knows the card; null where it does not. */
  nvidia: number | null;
}

/** CUDA 13's. */
const CUDA_DRIVER_MIN = 580;
/** Of the kernels in ONNX Runtime's CUDA provider: RTX 20. */
const COMPUTE_CAPABILITY_MIN = 7.5;
/** From which on a card computes in bfloat16: RTX 30. */
const BFLOAT16_CAPABILITY_MIN = 8;

/** All that could compute, the fastest kind first, of a kind the one with the most memory. */
export function listDevices(found: Found): Device[] {
  const cards = found.cards.map((card, index) => ({ card, index }));
  const byMemory = (a: { card: Card }, b: { card: Card }) => (b.card.memoryBytes ?? 0) - (a.card.memoryBytes ?? 0);
  const sorted = cards.toSorted(byMemory);
  const nvidia = sorted.filter(({ card }) => card.vendorId === '10de');
  return [
    ...nvidia.map(({ card, index }) => cudaDevice(card, card.cuda?.index ?? index, found)),
    ...sorted.map(({ card, index }) => webgpuDevice(card, index, found)),
    {
      device: 'cpu',
      name: found.processor,
      driver: null,
      memoryBytes: found.memoryBytes,
      freeBytes: null,
      missing: null,
      env: {},
      slot: null,
      model: null,
      nvidia: null,
    },
  ];
}

function cudaDevice(card: Card, index: number, { cudaEnv, precision }: Found): Device {
  const { name, driver, memoryBytes, freeBytes, cuda, slot } = card;
  const missing =
    cuda === null
      ? { what: "NVIDIA's driver does not answer", step: `install NVIDIA's driver ${CUDA_DRIVER_MIN} or newer` }
      : cuda.computeCapability < COMPUTE_CAPABILITY_MIN
        ? { what: 'the card is too old for CUDA 13', step: 'use it through Vulkan: --device webgpu' }
        : Number.parseInt(cuda.driver, 10) < CUDA_DRIVER_MIN
          ? { what: `driver ${cuda.driver} is too old`, step: `install NVIDIA's driver ${CUDA_DRIVER_MIN} or newer` }
          : cudaEnv === null
            ? { what: "CUDA's libraries are not installed", step: 'qwen-supervisor gpu install' }
            : null;
  return {
    device: `cuda:${index}`,
    name,
    driver,
    memoryBytes,
    freeBytes,
    missing,
    env: { ...cudaEnv, ...sixteenBits(precision, (cuda?.computeCapability ?? 0) >= BFLOAT16_CAPABILITY_MIN) },
    slot,
    model: modelOf(card),
    nvidia: cuda?.number ?? null,
  };
}

/** Bfloat16 where a card has it: it holds every number that float32 holds. Else, and through Vulkan, float16. */
function sixteenBits(precision: Found['precision'], hasBfloat16 = false): Record<string, string> {
  if (precision === 'float32') return {};
  return { [CHILD_ENV.compute]: hasBfloat16 ? 'bfloat16 float16' : 'float16' };
}

function modelOf({ vendorId, deviceId }: Card): string {
  return `${vendorId}:${deviceId}`;
}

function webgpuDevice(card: Card, index: number, { cards, hidesCards, vulkan, precision }: Found): Device {
  const { name, driver, memoryBytes, freeBytes, vendorId, slot } = card;
  const missing = !vulkan.hasLoader
    ? { what: 'libvulkan.so.1 is not installed', step: 'apt install libvulkan1 (Fedora, Arch: vulkan-loader)' }
    : vulkan.drivers.every(({ isSoftware }) => isSoftware)
      ? {
          what: 'no Vulkan driver for it is installed',
          step: vendorId === '10de' ? "install NVIDIA's driver" : 'apt install mesa-vulkan-drivers',
        }
      : card.closedNode !== null
        ? {
            what: `this user may not open ${card.closedNode}`,
            step: "'sudo usermod -aG render USER' and log in anew; in a container give it --device /dev/dri",
          }
        : null;
  // Of several cards the loader, or Mesa's layer, shows the chosen one alone.
  const chosen = modelOf(card);
  const shown: Record<string, string> =
    cards.length > 1 || hidesCards ? { MESA_VK_DEVICE_SELECT: `${chosen}!`, VK_LOADER_DEVICE_SELECT: chosen } : {};
  // Where the card's own driver may not open it the loader would show the processor's in its place.
  const real = vulkan.drivers.filter(({ isSoftware }) => !isSoftware).map(({ manifest }) => manifest);
  const files = real.join(delimiter);
  const drivers: Record<string, string> = real.length > 0 ? { VK_DRIVER_FILES: files, VK_ICD_FILENAMES: files } : {};
  const env = { ...shown, ...drivers, ...sixteenBits(precision) };
  const nvidia = card.cuda?.number ?? null;
  return { device: `webgpu:${index}`, name, driver, memoryBytes, freeBytes, missing, env, slot, model: chosen, nvidia };
}

/** A device that may be taken, and why. */
export interface Candidate extends Device {
  reason: string;
}

/**
 * What is to be tried, in this order, for the operator's wish; `passedOver` says why the others are not. Whoever names
 * a device gets it tried even where something seems to be missing: the failure tells more.
 */
export function candidatesFor(
  wanted: string,
  fallback: 'cpu' | 'none',
  found: Found,
): { candidates: Candidate[]; passedOver: string[] } {
  const devices = listDevices(found);
  const cpu = devices.find(({ device }) => device === 'cpu') as Device;
  if (wanted === 'cpu') return { candidates: [{ ...cpu, reason: 'asked for' }], passedOver: [] };
  if (wanted !== 'auto') {
    const last = fallback === 'cpu' ? [{ ...cpu, reason: `${wanted} does not work` }] : [];
    return { candidates: [{ ...named(wanted, devices, found), reason: 'asked for' }, ...last], passedOver: [] };
  }
  const cards = devices.filter(({ device }) => device !== 'cpu');
  const ruledOut = cards.flatMap((device) => {
    const why = device.missing?.what ?? (device.memoryBytes === null ? 'has no memory of its own that is known' : null);
    return why === null ? [] : [{ device, why }];
  });
  const able = cards.filter((card) => !ruledOut.some(({ device }) => device === card));
  return {
    candidates: [
      ...able.map((device) => ({ ...device, reason: 'the fastest that works' })),
      { ...cpu, reason: cards.length === 0 ? 'there is no graphics card' : 'no graphics card can be used' },
    ],
    passedOver: ruledOut.map(({ device, why }) => `${device.device} ${device.name}: ${why}`),
  };
}

/**
 * What a worker holds of its card: `bytes`, if somebody has counted them. NVIDIA's tool alone does: of other cards all
 * that is not free is taken to be the worker's that runs there.
 */
export function heldOnCard({ nvidia }: Pick<Device, 'nvidia'>, bytes: number, isRunning: boolean): number {
  return nvidia === null && isRunning ? Number.POSITIVE_INFINITY : bytes;
}

/** Of several devices the others go on: a slow one would take their pictures. */
export function fallbackOf(config: Pick<Config, 'device' | 'device-fallback'>): 'cpu' | 'none' {
  return listOfDevices(config.device).length === 1 ? config['device-fallback'] : 'none';
}

/** What would still be missing for CUDA if its libraries were installed; null where nothing is known to be. */
export function whyNoCuda(found: Found): { what: string; step: string } | null {
  const ofCuda = listDevices({ ...found, cudaEnv: {} }).filter(({ device }) => parseDevice(device).kind === 'cuda');
  if (ofCuda.some(({ missing }) => missing === null)) return null;
  return ofCuda[0]?.missing ?? { what: 'no NVIDIA card is seen here', step: 'qwen-supervisor device list' };
}

/** `cuda` and `webgpu` are the first of their kind; one that is not there may still answer. */
function named(wanted: string, devices: Device[], { cudaEnv, precision }: Found): Device {
  const { kind, index } = parseDevice(wanted);
  const of = devices.filter(({ device }) => parseDevice(device).kind === kind);
  const found = wanted.includes(':') ? of.find(({ device }) => parseDevice(device).index === index) : of[0];
  return (
    found ?? {
      device: `${kind}:${index}`,
      name: kind === 'cuda' ? 'NVIDIA card' : 'Vulkan device',
      driver: null,
      memoryBytes: null,
      freeBytes: null,
      missing: null,
      env: { ...(kind === 'cuda' ? cudaEnv : null), ...sixteenBits(precision) },
      slot: null,
      model: null,
      nvidia: kind === 'cuda' ? index : null,
    }
  );
}
