/** What a machine could compute with, what is missing, and what is taken. */
import { CHILD_ENV } from '@qwen-supervisor/protocol/messages';
import type { Card } from '@qwen-supervisor/supervisor/devices/cards';
import { candidatesFor, type Found, listDevices, whyNoCuda } from '@qwen-supervisor/supervisor/devices/devices';
import { describe, expect, test } from 'vitest';

const NVIDIA: Card = {
  slot: '0000:01:00.0',
  vendorId: '10de',
  deviceId: '2684',
  name: 'NVIDIA GeForce RTX 4090',
  driver: 'nvidia 580.65.06',
  memoryBytes: 24e9,
  freeBytes: 23e9,
  closedNode: null,
  cuda: { index: 0, number: 0, computeCapability: 8.9, driver: '580.65.06' },
};
const OLD_DRIVER: Card = {
  ...NVIDIA,
  cuda: { index: 1, number: 1, computeCapability: 8.9, driver: '550.1' },
};
const AMD: Card = {
  slot: '0000:03:00.0',
  vendorId: '1002',
  deviceId: '744c',
  name: 'AMD 744c',
  driver: 'amdgpu',
  memoryBytes: 16e9,
  freeBytes: 15e9,
  closedNode: null,
  cuda: null,
};
const INTEL: Card = { ...AMD, slot: '0000:00:02.0', vendorId: '8086', name: 'Intel 9bc5', memoryBytes: null };
const RADEON = { manifest: '/icd.d/radeon.json', library: 'libvulkan_radeon.so', isSoftware: false };
const LAVAPIPE = { manifest: '/icd.d/lvp.json', library: 'libvulkan_lvp.so', isSoftware: true };
const VULKAN = { hasLoader: true, drivers: [LAVAPIPE, RADEON] };
const CHOSEN_DRIVERS = { VK_DRIVER_FILES: RADEON.manifest, VK_ICD_FILENAMES: RADEON.manifest };
const FOUND: Found = {
  cards: [],
  hidesCards: false,
  vulkan: VULKAN,
  cudaEnv: { LD_LIBRARY_PATH: '/cuda/lib' },
  precision: 'auto',
  processor: 'A CPU',
  memoryBytes: 32e9,
};

const choose = (wanted: string, found: Partial<Found>, fallback: 'cpu' | 'none' = 'cpu') =>
  candidatesFor(wanted, fallback, { ...FOUND, ...found });
const order = (...args: Parameters<typeof choose>) => choose(...args).candidates.map(({ device }) => device);

describe('auto', () => {
  test('takes CUDA before Vulkan before the processor', () => {
    expect(order('auto', { cards: [NVIDIA] })).toEqual(['cuda:0', 'webgpu:0', 'cpu']);
    expect(order('auto', { cards: [AMD] })).toEqual(['webgpu:0', 'cpu']);
    expect(order('auto', {})).toEqual(['cpu']);
    expect(choose('auto', {}).candidates[0]).toMatchObject({ reason: 'there is no graphics card' });
  });

  test('takes the card with the most memory, and shows that one alone to Vulkan', () => {
    const { candidates } = choose('auto', { cards: [AMD, NVIDIA], cudaEnv: null });
    expect(candidates.map(({ device }) => device)).toEqual(['webgpu:1', 'webgpu:0', 'cpu']);
    expect(candidates[0]?.env).toEqual({
      MESA_VK_DEVICE_SELECT: '10de:2684!',
      VK_LOADER_DEVICE_SELECT: '10de:2684',
      ...CHOSEN_DRIVERS,
      [CHILD_ENV.compute]: 'float16',
    });
  });

  test('passes over what it cannot be sure of, and says why', () => {
    expect(choose('auto', { cards: [INTEL] }).passedOver).toEqual([
      'webgpu:0 Intel 9bc5: has no memory of its own that is known',
    ]);
    expect(order('auto', { cards: [AMD], vulkan: { hasLoader: true, drivers: [LAVAPIPE] } })).toEqual(['cpu']);
    const closed = choose('auto', { cards: [{ ...AMD, closedNode: '/dev/dri/renderD128' }] });
    expect(closed.passedOver).toEqual(['webgpu:0 AMD 744c: this user may not open /dev/dri/renderD128']);
    expect(closed.candidates.map(({ device }) => device)).toEqual(['cpu']);
  });
});

test.each<[string, Partial<Found>, string]>([
  ['no libraries', { cards: [NVIDIA], cudaEnv: null }, 'qwen-supervisor gpu install'],
  ['an old driver', { cards: [{ ...NVIDIA, cuda: { ...NVIDIA.cuda, driver: '550.1' } as never }] }, '580 or newer'],
  ['no driver', { cards: [{ ...NVIDIA, cuda: null }] }, '580 or newer'],
  [
    'a card of 2016',
    { cards: [{ ...NVIDIA, cuda: { ...NVIDIA.cuda, computeCapability: 6.1 } as never }] },
    'use it through Vulkan',
  ],
])('CUDA with %s is listed with the step that is missing', (_, found, step) => {
  const [device] = listDevices({ ...FOUND, ...found });
  expect(device).toMatchObject({ device: 'cuda:0', missing: { step: expect.stringContaining(step) } });
});

test('a card may compute in bfloat16 from RTX 30 on, in float16 before that and through Vulkan, and in neither where that is not wanted', () => {
  const may = (found: Partial<Found>, of = 'cuda:0') =>
    listDevices({ ...FOUND, ...found }).find(({ device }) => device === of)?.env[CHILD_ENV.compute];
  const older = { ...NVIDIA, cuda: { ...NVIDIA.cuda, computeCapability: 7.5 } } as Card;
  expect(may({ cards: [NVIDIA] })).toBe('bfloat16 float16');
  expect(may({ cards: [older] })).toBe('float16');
  expect(may({ cards: [NVIDIA] }, 'webgpu:0')).toBe('float16');
  for (const device of ['cuda:0', 'webgpu:0'])
    expect(may({ cards: [NVIDIA], precision: 'float32' }, device), device).toBeUndefined();
  expect(may({ cards: [NVIDIA] }, 'cpu')).toBeUndefined();
});

test('beside the driver of a card that of the processor is not shown to Vulkan, which would give it out in its place', () => {
  const envOf = (found: Partial<Found>) => choose('webgpu', { cards: [AMD], ...found }).candidates[0]?.env;
  expect(envOf({})).toMatchObject(CHOSEN_DRIVERS);
  // Whoever asks for it by name gets it.
  expect(Object.keys(envOf({ vulkan: { hasLoader: true, drivers: [LAVAPIPE] } }) ?? {})).toEqual([CHILD_ENV.compute]);
});

test.each<[Partial<Found>, string]>([
  [{ cards: [{ ...AMD, closedNode: '/dev/dri/renderD128' }] }, 'usermod -aG render'],
  [{ cards: [AMD], vulkan: { hasLoader: false, drivers: [] } }, 'apt install libvulkan1'],
  [{ cards: [AMD], vulkan: { hasLoader: true, drivers: [] } }, 'apt install mesa-vulkan-drivers'],
])('Vulkan that is not whole is listed with the package that is missing', (found, step) => {
  expect(listDevices({ ...FOUND, ...found })[0]).toMatchObject({ missing: { step: expect.stringContaining(step) } });
});

test('who names a device gets it tried, even if nothing is seen of it, and the processor after it unless not wanted', () => {
  expect(order('webgpu', {})).toEqual(['webgpu:0', 'cpu']);
  expect(order('cuda:3', {}, 'none')).toEqual(['cuda:3']);
  expect(order('webgpu', { cards: [AMD, NVIDIA] })).toEqual(['webgpu:1', 'cpu']);
  expect(order('webgpu:0', { cards: [AMD, NVIDIA] })).toEqual(['webgpu:0', 'cpu']);
  expect(order('cpu', { cards: [AMD, NVIDIA] }, 'none')).toEqual(['cpu']);
});

test.each<[string, Partial<Found>, string | null]>([
  ['a card and driver that CUDA takes', { cards: [NVIDIA] }, null],
  ['two cards, of which one will do', { cards: [OLD_DRIVER, NVIDIA] }, null],
  ['an old driver', { cards: [OLD_DRIVER] }, 'driver 550.1 is too old'],
  ['no driver', { cards: [{ ...NVIDIA, cuda: null }] }, "NVIDIA's driver does not answer"],
  ['a card of another maker', { cards: [AMD] }, 'no NVIDIA card is seen here'],
])('before a gigabyte is downloaded it is known whether it will be of use: %s', (_, found, what) => {
  expect(whyNoCuda({ ...FOUND, cudaEnv: null, ...found })?.what ?? null).toBe(what);
});
