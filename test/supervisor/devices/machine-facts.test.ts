/** What is read of a machine's cards and of its Vulkan, from files as kernels and drivers write them. */
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { readCards } from '@qwen-supervisor/supervisor/devices/cards';
import { readVulkan } from '@qwen-supervisor/supervisor/devices/vulkan';
import { afterEach, expect, test } from 'vitest';
import { temporaryFolder } from '../../fixture-files.js';

const PATH = process.env.PATH;
afterEach(() => {
  process.env.PATH = PATH;
});

function write(root: string, files: Record<string, string>): string {
  for (const [name, text] of Object.entries(files)) {
    const file = join(root, name);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
  return root;
}

/** A program of this name at the head of the path. */
function install(name: string, script: string): void {
  const folder = temporaryFolder();
  writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`);
  chmodSync(join(folder, name), 0o755);
  process.env.PATH = `${folder}:${PATH}`;
}

const AMDGPU = {
  'sys/class/drm/renderD128/device/vendor': '0x1002\n',
  'sys/class/drm/renderD128/device/device': '0x744c\n',
  'sys/class/drm/renderD128/device/uevent': 'DRIVER=amdgpu\nPCI_CLASS=30000\nPCI_SLOT_NAME=0000:03:00.0\n',
  'sys/class/drm/renderD128/device/mem_info_vram_total': '25753026560\n',
  'sys/class/drm/renderD128/device/mem_info_vram_used': '1073741824\n',
  'dev/dri/renderD128': '',
};
const NOUVEAU = {
  'sys/class/drm/renderD129/device/vendor': '0x10de\n',
  'sys/class/drm/renderD129/device/device': '0x2684\n',
  'sys/class/drm/renderD129/device/uevent': 'DRIVER=nvidia\nPCI_SLOT_NAME=0000:01:00.0\n',
};

test("a card is what the kernel shows, with NVIDIA's numbers where its tool knows it", async () => {
  install(
    'nvidia-smi',
    "echo '0, GPU-1a, 00000000:01:00.0, 0x268410DE, 24564, 23000, 8.9, 580.65.06, NVIDIA GeForce RTX 4090'",
  );
  expect(await readCards({}, write(temporaryFolder(), { ...AMDGPU, ...NOUVEAU }))).toEqual([
    {
      slot: '0000:01:00.0',
      vendorId: '10de',
      deviceId: '2684',
      name: 'NVIDIA GeForce RTX 4090',
      driver: 'nvidia 580.65.06',
      memoryBytes: 24564 * 2 ** 20,
      freeBytes: 23000 * 2 ** 20,
      closedNode: null,
      cuda: { index: 0, number: 0, computeCapability: 8.9, driver: '580.65.06' },
    },
    {
      slot: '0000:03:00.0',
      vendorId: '1002',
      deviceId: '744c',
      name: 'AMD 744c',
      driver: 'amdgpu',
      memoryBytes: 25753026560,
      freeBytes: 25753026560 - 1073741824,
      closedNode: null,
      cuda: null,
    },
  ]);
});

test('a tool that fails, or a card that tells no numbers, leaves a card without them', async () => {
  const root = write(temporaryFolder(), NOUVEAU);
  install('nvidia-smi', 'echo "NVIDIA-SMI has failed"; exit 9');
  expect(await readCards({}, root)).toMatchObject([{ name: 'NVIDIA 2684', memoryBytes: null, cuda: null }]);
  install('nvidia-smi', "echo '0, GPU-1a, 00000000:01:00.0, 0x268410DE, [N/A], [N/A], 12.1, 580.1, NVIDIA GB10'");
  expect(await readCards({}, root)).toMatchObject([{ name: 'NVIDIA GB10', memoryBytes: null, freeBytes: null }]);
});

test.each([
  [undefined, ['0 A', '1 B', '2 C']],
  ['2,0', ['1 A', '0 C']],
  ['GPU-2b', ['0 B']],
  ['1,7,0', ['0 B']],
  ['', []],
  ['-1', []],
  ['MIG-7f', ['0 A', '1 B', '2 C']],
])(
  'with CUDA_VISIBLE_DEVICES=%s the cards are counted as CUDA counts them, and the others are nobody’s',
  async (wish, seen) => {
    const row = (index: number, name: string) =>
      `${index}, GPU-${index + 1}b, 00000000:0${index + 1}:00.0, 0x268410DE, 1000, 900, 8.9, 580.1, ${name}`;
    install('nvidia-smi', `echo '${['A', 'B', 'C'].map((name, i) => row(i, name)).join('\n')}'`);
    const env = wish === undefined ? {} : { CUDA_VISIBLE_DEVICES: wish };
    const cards = await readCards(env, write(temporaryFolder(), NOUVEAU));
    expect(cards.map(({ cuda, name }) => `${cuda?.index} ${name}`)).toEqual(seen);
  },
);

test('a machine without cards, or with a simulated one, has none', async () => {
  install('nvidia-smi', 'exit 127');
  expect(await readCards({}, temporaryFolder())).toEqual([]);
  const vgem = { 'sys/class/drm/renderD128/device/uevent': 'DRIVER=vgem\nMODALIAS=platform:vgem\n' };
  expect(await readCards({}, write(temporaryFolder(), vgem))).toEqual([]);
});

/** Of Linux: where a window begins and ends, and its flags; here one of registers and one that may be read ahead. */
const windows = (bytes: number) =>
  `0x00000000a0000000 0x00000000a0ffffff 0x0000000000140204\n0x0000004000000000 0x${(0x4000000000 + bytes - 1).toString(16).padStart(16, '0')} 0x000000000014220c\n`;
test.each<[string, Record<string, string>, number | null]>([
  ['an Arc tells it', { 'tile0/physical_vram_size_bytes': '12884901888\n', resource: windows(2 ** 28) }, 12 * 2 ** 30],
  ['an Arc shows all of it on the bus', { resource: windows(2 ** 34) }, 2 ** 34],
  ['without Resizable BAR a card shows a window', { resource: windows(2 ** 28) }, null],
  ["a processor's graphics tell what they have set aside", { mem_info_vram_total: '536870912\n' }, null],
])('the memory of a card is its own: %s', async (_, files, bytes) => {
  install('nvidia-smi', 'exit 127');
  const folder = 'sys/class/drm/renderD128/device';
  const { [`${folder}/mem_info_vram_total`]: total, [`${folder}/mem_info_vram_used`]: used, ...card } = AMDGPU;
  const own = Object.fromEntries(Object.entries(files).map(([name, text]) => [`${folder}/${name}`, text]));
  const [found] = await readCards({}, write(temporaryFolder(), { ...card, ...own }));
  expect([found?.memoryBytes, found?.freeBytes]).toEqual([bytes, null]);
});

test("a card whose node in /dev is not there, as in a container, or not this user's, is told apart", async () => {
  install('nvidia-smi', 'exit 127');
  const { 'dev/dri/renderD128': node, ...without } = AMDGPU;
  const root = write(temporaryFolder(), without);
  expect(await readCards({}, root)).toMatchObject([{ closedNode: join(root, 'dev/dri/renderD128') }]);
});

test('Vulkan is its loader and its drivers, those in software told apart', () => {
  const manifest = (library: string) => JSON.stringify({ ICD: { library_path: library, api_version: '1.3' } });
  const root = write(temporaryFolder(), {
    'usr/lib/x86_64-linux-gnu/libvulkan.so.1.3.239': '',
    'usr/share/vulkan/icd.d/radeon_icd.x86_64.json': manifest('/usr/lib/x86_64-linux-gnu/libvulkan_radeon.so'),
    'usr/share/vulkan/icd.d/lvp_icd.x86_64.json': manifest('libvulkan_lvp.so'),
    'etc/vulkan/icd.d/broken.json': '{',
  });
  expect(readVulkan({}, root)).toMatchObject({ hasLoader: false });
  symlinkSync('libvulkan.so.1.3.239', join(root, 'usr/lib/x86_64-linux-gnu/libvulkan.so.1'));
  writeFileSync(join(root, 'usr/lib/x86_64-linux-gnu/libvulkan.so.1.3.239'), '');
  const folder = join(root, 'usr/share/vulkan/icd.d');
  const named = join(folder, 'lvp_icd.x86_64.json');
  expect(readVulkan({}, root)).toEqual({
    hasLoader: true,
    drivers: [
      { manifest: named, library: 'libvulkan_lvp.so', isSoftware: true },
      { manifest: join(folder, 'radeon_icd.x86_64.json'), library: 'libvulkan_radeon.so', isSoftware: false },
    ],
  });
  // Where Vulkan's loader looks, too: what is not seen there would be hidden from it.
  const elsewhere = write(temporaryFolder(), {
    'flatpak/vulkan/icd.d/a.json': manifest('liba.so'),
    'home/.config/vulkan/icd.d/b.json': manifest('libb.so'),
    'home/.local/share/vulkan/icd.d/c.json': manifest('libc.so'),
    'added.json': manifest('libd.so'),
  });
  const env = {
    HOME: join(elsewhere, 'home'),
    XDG_DATA_DIRS: `${join(elsewhere, 'flatpak')}:${join(root, 'usr/share')}`,
    VK_ADD_DRIVER_FILES: join(elsewhere, 'added.json'),
  };
  expect(readVulkan(env, root).drivers.map(({ library }) => library)).toEqual([
    'libd.so',
    'libb.so',
    'libc.so',
    'liba.so',
    'libvulkan_lvp.so',
    'libvulkan_radeon.so',
  ]);
  expect(readVulkan({ VK_DRIVER_FILES: named }, root).drivers).toEqual([
    { manifest: named, library: 'libvulkan_lvp.so', isSoftware: true },
  ]);
});
