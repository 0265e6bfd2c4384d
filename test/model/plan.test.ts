/** How a model is run within what memory there is: the sizes of Qwen-Image, by its headers. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { openCheckpoint } from '@qwen-supervisor/model/checkpoint';
import { buildGraphs } from '@qwen-supervisor/model/graphs';
import { costsOf, weightMemory } from '@qwen-supervisor/model/plan/costs';
import { availableMemory } from '@qwen-supervisor/model/plan/memory';
import { choosePrecision, planModel, stageMemory } from '@qwen-supervisor/model/plan/plan';
import type { Quantisation } from '@qwen-supervisor/model/prepare/precision';
import { describe, expect, test } from 'vitest';
import { temporaryFolder } from '../fixture-files.js';
import { writeQwenImage, writeSparse } from '../qwen-image-sizes.js';

const OWN_SIZE = 1328 * 1328;
const machine = (machineBytes: number) => ({ machineBytes, card: null });

function costs(quantisation: Quantisation, layers = 60, textLayers = 28) {
  const folder = temporaryFolder();
  writeQwenImage(folder, writeSparse, layers, textLayers);
  const checkpoint = openCheckpoint(folder);
  return costsOf(checkpoint.architecture, buildGraphs(checkpoint), quantisation);
}

describe('Qwen-Image', () => {
  test('is kept in int4 for 16 and 24 GB of memory, in int8 for 32', () => {
    const chosen = (memory: number) => choosePrecision(costs, { machineBytes: memory, card: null }, OWN_SIZE);
    expect([16e9, 24e9, 32e9].map(chosen)).toEqual(['int4', 'int4', 'int8']);
    expect([16, 24, 32].map((gib) => chosen(gib * 2 ** 30))).toEqual(['int4', 'int4', 'int8']);
  });

  test('is kept in int4 for a card of 12 or 16 GB, however much memory the machine has, in int8 for one of 24', () => {
    const chosen = (gib: number) => {
      const card = { kind: 'cuda', bytes: gib * 2 ** 30, attention: 'fused', compute: 'bfloat16' } as const;
      return choosePrecision(costs, { machineBytes: 128e9, card }, OWN_SIZE);
    };
    expect([12, 16, 24].map(chosen)).toEqual(['int4', 'int4', 'int8']);
  });

  test('in int4 draws its own size in 12 GB, and goes through its stages where not all fits at once', () => {
    const int4 = costs('int4');
    const at = (gigabytes: number) => planModel(int4, machine(gigabytes * 1e9), OWN_SIZE);
    expect(at(11)).toMatchObject({ fastPixels: 0, residentPixels: 0 });
    expect(at(11)?.largestPixels).toBeGreaterThan(OWN_SIZE);
    expect(at(16)?.residentPixels).toBe(0);
    expect(at(16)?.fastPixels).toBeGreaterThan(OWN_SIZE);
    expect(at(32)?.fastPixels).toBeGreaterThan(OWN_SIZE);
    expect(at(32)?.residentPixels).toBeGreaterThan(OWN_SIZE);
    expect(at(8)).toBeNull();
  });

  test('is never drawn smaller where there is more memory', () => {
    for (const quantisation of ['int4', 'int8'] as const) {
      const model = costs(quantisation);
      const plans = Array.from({ length: 60 }, (_, i) => planModel(model, machine((9 + i / 2) * 1e9), OWN_SIZE));
      const pixels = plans.map((plan) => plan?.largestPixels ?? 0);
      expect(pixels.filter((count, i) => i > 0 && count < (pixels[i - 1] as number))).toEqual([]);
      // Nor slower, for pictures of its own size.
      const isFast = plans.map((plan) => (plan?.fastPixels ?? 0) >= OWN_SIZE);
      expect(isFast.lastIndexOf(false)).toBeLessThan(isFast.indexOf(true));
      for (const plan of plans) expect(plan?.residentPixels ?? 0).toBeLessThanOrEqual(plan?.largestPixels ?? 0);
      for (const plan of plans) expect(plan?.neededBytes ?? 0).toBeLessThanOrEqual(plan?.availableBytes ?? 0);
    }
  });

  test('that is multiplied the thrifty way has its text encoder so, too', () => {
    const int4 = costs('int4');
    const encoder = (fastPixels: number) =>
      stageMemory(int4, { fastPixels, tileAbovePixels: 0 }, 'text_encoder', OWN_SIZE, null).weightBytes;
    expect(encoder(0)).toBeLessThan(encoder(OWN_SIZE));
    expect(encoder(OWN_SIZE / 4), 'larger pictures have the same texts').toBe(encoder(OWN_SIZE));
  });

  test('on a card takes its memory for all but the text encoder, and less of the machine', () => {
    const int4 = costs('int4');
    const on = (
      gigabytes: number,
      attention: 'fused' | 'decomposed' = 'fused',
      compute: 'float32' | 'float16' = 'float32',
    ) =>
      planModel(
        int4,
        { machineBytes: 16e9, card: { kind: 'webgpu', bytes: gigabytes * 1e9, attention, compute } },
        OWN_SIZE,
      );
    expect(on(8)).toBeNull();
    expect(on(12)?.largestPixels).toBeGreaterThan(768 * 768);
    expect(on(16)?.largestPixels).toBeGreaterThan(OWN_SIZE);
    expect(on(12)?.cardBytes).toBeLessThan(12e9);
    expect(on(24)?.residentPixels).toBeGreaterThan(OWN_SIZE);
    expect(on(24)?.neededBytes).toBeLessThan(11e9);
    // The scores of attention that is taken apart: gigabytes at this size.
    expect(on(16, 'decomposed')?.largestPixels).toBeLessThan(on(16)?.largestPixels ?? 0);
    // Scales of 16 bits are half a gigabyte less.
    expect(on(11)).toBeNull();
    expect(on(11, 'fused', 'float16')?.largestPixels).toBeGreaterThan(512 * 512);
    const small = {
      machineBytes: 2e9,
      card: { kind: 'cuda', bytes: 24e9, attention: 'fused', compute: 'float32' },
    } as const;
    expect(planModel(int4, small, OWN_SIZE), 'the machine has no memory for the text').toBeNull();
  });

  let int4: ReturnType<typeof costs> | null = null;
  const int4On = (
    kind: 'cuda' | 'webgpu',
    gigabytes: number,
    { attention = 'fused', pixels = OWN_SIZE }: { attention?: 'fused' | 'decomposed'; pixels?: number } = {},
  ) => {
    int4 ??= costs('int4');
    const card = { kind, bytes: gigabytes * 1e9, attention, compute: 'float16' } as const;
    return planModel(int4, { machineBytes: 32e9, card }, pixels);
  };

  test('through Vulkan is decoded in tiles beyond what a card binds at once, however much memory it has', () => {
    expect(int4On('webgpu', 80)).toMatchObject({ tileAbovePixels: 2 ** 20 });
    // What is drawn with all in memory may be smaller than that, and the largest picture larger.
    const small = { attention: 'decomposed', pixels: 512 * 512 } as const;
    const narrow = Array.from({ length: 50 }, (_, i) => int4On('webgpu', 16.5 + i / 100, small));
    const between = narrow.filter((plan) => plan && plan.residentPixels < 2 ** 20 && plan.largestPixels > 2 ** 20);
    expect(between.length).toBeGreaterThan(0);
    for (const plan of between) expect(plan?.tileAbovePixels).toBeLessThanOrEqual(2 ** 20);
    expect(int4On('cuda', 80)?.tileAbovePixels).toBeGreaterThan(OWN_SIZE);
  });

  test('on CUDA has room for what each session keeps, which gives nothing back', () => {
    for (const gigabytes of [12, 16, 24]) {
      const [cuda, webgpu] = [int4On('cuda', gigabytes), int4On('webgpu', gigabytes)];
      expect(cuda?.cardBytes, `${gigabytes} GB`).toBeLessThanOrEqual(gigabytes * 1e9);
      expect(cuda?.residentPixels ?? 0, `${gigabytes} GB`).toBeLessThanOrEqual(webgpu?.residentPixels ?? 0);
    }
    expect(int4On('cuda', 24)?.residentPixels).toBeGreaterThan(OWN_SIZE);
    expect(int4On('cuda', 16)?.residentPixels).toBeLessThan(int4On('webgpu', 16)?.residentPixels ?? 0);
    // A model whose weights are not quantised is cut into parts, so that they pass through the machine's memory.
    expect([costs('none').cudaParts, costs('int4').cudaParts]).toEqual([6, 1]);
  });

  test('counts its weights by how they are kept', () => {
    const { weights } = costs('int4');
    const billions = Object.values(weights.transformer).map((n) => Math.round(n / 1e7) / 100);
    expect(billions).toEqual([0.01, 2.56, 10.95]);
    expect(weightMemory(weights.text_encoder, 4) / 1e9).toBeCloseTo(8.4, 1);
  });
});

test('a pass of Qwen-Image takes as many operations as its authors and others count', () => {
  const { operations } = costs('int4');
  const tera = [512, 1024, 1328].map((side) => Math.round(operations(side * side) / 1e12));
  expect(tera).toEqual([16, 69, 130]);
});

test('four blocks fit into 2.5 GiB, and not into 1 GiB', () => {
  const four = costs('int4', 4, 2);
  const plan = planModel(four, machine(2.5 * 2 ** 30), 512 * 512);
  expect(plan?.largestPixels).toBeGreaterThanOrEqual(512 * 512);
  expect(plan?.neededBytes).toBeLessThanOrEqual(2.5 * 2 ** 30);
  expect(planModel(four, machine(2 ** 30), 512 * 512)).toBeNull();
});

test('a picture that is too large to be decoded at once is decoded in tiles', () => {
  const int4 = costs('int4');
  const [small, large] = [11e9, 40e9].map((memory) => planModel(int4, machine(memory), OWN_SIZE)?.tileAbovePixels ?? 0);
  expect(Math.log2(small as number) % 1).toBe(0);
  expect(large).toBeGreaterThan(OWN_SIZE);
});

describe('memory that is there', () => {
  const root = (files: Record<string, string>) => {
    const folder = temporaryFolder();
    for (const [name, text] of Object.entries({ 'proc/meminfo': 'MemAvailable:   16000000 kB\n', ...files })) {
      mkdirSync(dirname(join(folder, name)), { recursive: true });
      writeFileSync(join(folder, name), text);
    }
    return folder;
  };

  test('is what the kernel calls available', () => {
    expect(availableMemory(root({}))).toBe(16000000 * 1024);
  });

  test('is what the tightest group around us has left, its cached files not counted', () => {
    const v2 = {
      'proc/self/cgroup': '0::/system.slice/qwen.service\n',
      'sys/fs/cgroup/memory.stat': 'inactive_file 1\n',
      'sys/fs/cgroup/system.slice/memory.max': '8000000000\n',
      'sys/fs/cgroup/system.slice/memory.current': '3000000000\n',
      'sys/fs/cgroup/system.slice/memory.stat': 'anon 1\ninactive_file 700000000\nactive_file 300000000\n',
      'sys/fs/cgroup/system.slice/qwen.service/memory.max': 'max\n',
      'sys/fs/cgroup/system.slice/qwen.service/memory.high': 'max\n',
      'sys/fs/cgroup/system.slice/qwen.service/memory.current': '5\n',
    };
    expect(availableMemory(root(v2))).toBe(6e9);
    const high = { ...v2, 'sys/fs/cgroup/system.slice/qwen.service/memory.high': '2000000005\n' };
    expect(availableMemory(root(high))).toBe(2e9);
    const v1 = {
      'proc/self/cgroup': '4:memory:/box\n',
      'sys/fs/cgroup/memory/box/memory.limit_in_bytes': '4000000000\n',
      'sys/fs/cgroup/memory/box/memory.usage_in_bytes': '1000000000\n',
      'sys/fs/cgroup/memory/box/memory.stat':
        'inactive_file 5\ntotal_inactive_file 400000000\ntotal_active_file 100000000\n',
    };
    expect(availableMemory(root(v1))).toBe(3.5e9);
  });
});
