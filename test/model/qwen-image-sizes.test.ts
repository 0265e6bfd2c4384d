/** Qwen-Image's own sizes, in files that have its headers and no data: nothing may assume the pocket model. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openCheckpoint } from '@qwen-supervisor/model/checkpoint';
import { describeModel } from '@qwen-supervisor/model/descriptions';
import { buildGraphs } from '@qwen-supervisor/model/graphs';
import type { OnnxGraph } from '@qwen-supervisor/model/onnx';
import { planPreparation } from '@qwen-supervisor/model/prepare/prepare';
import { openModel } from '@qwen-supervisor/model/registry/open-model';
import { elementCount } from '@qwen-supervisor/model/safetensors';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../fixture-files.js';
import { nodesOf } from '../onnx-nodes.js';
import { ON_CARDS } from '../operators-on-cards.js';
import { writeQwenImage, writeSparse } from '../qwen-image-sizes.js';

function qwenImage(): string {
  const folder = temporaryFolder();
  writeQwenImage(folder, writeSparse);
  return folder;
}

const parameters = (...graphs: OnnxGraph[]) =>
  graphs.flatMap((graph) => graph.weights).reduce((sum, { dims }) => sum + elementCount(dims), 0);

test('a checkpoint of the sizes of Qwen-Image is accepted, known by name, and all its weights are in the graphs', () => {
  const checkpoint = openCheckpoint(qwenImage());
  expect(describeModel(checkpoint, 'x')).toMatchObject({
    id: 'qwen-image',
    defaults: { width: 1328, height: 1328, numInferenceSteps: 50, trueCfgScale: 4, negativePrompt: ' ' },
  });
  const graphs = buildGraphs(checkpoint);
  // All of the published count but the last block's text output, which nothing reads.
  const unread = 3072 * 3072 + 3072 + 2 * 4 * 3072 * 3072 + 5 * 3072;
  const { embed, layers } = graphs.modulation;
  const ofModulation = [...embed, ...layers]
    .flatMap(({ weight, bias }) => [weight, bias])
    .reduce((sum, { shape }) => sum + elementCount(shape), 0);
  const parts = graphs.transformer.map(({ graph }) => graph);
  expect(parts).toHaveLength(6);
  expect(ofModulation + parameters(...parts)).toBe(20_430_401_088 - unread);
  expect(parameters(graphs.decoder) / 1e6).toBeCloseTo(25.3, 1);
});

test('Qwen-Image-2512 is known by its model card, for its weights alone are others', () => {
  const folder = qwenImage();
  writeFileSync(join(folder, 'README.md'), '---\nlicense: apache-2.0\n---\n# Qwen-Image-2512\n');
  const { id, defaults } = describeModel(openCheckpoint(folder), 'x');
  expect([id, defaults.negativePrompt.slice(0, 4)]).toEqual(['qwen-image-2512', '低分辨率']);
});

test('what it is prepared to is known from its headers, and it is not converted without being added', () => {
  const folder = qwenImage();
  const recipe = { source: '', quality: 'standard' as const };
  const gigabytes = (quantise: 'int4' | 'int8') => {
    const { bytesToRead, bytesToWrite } = planPreparation(openCheckpoint(folder), quantise, new Map(), recipe);
    return [bytesToRead, bytesToWrite].map((bytes) => Math.round(bytes / 1e8) / 10);
  };
  // Everything but the vision tower and the head is read; of the last block's text output nothing is.
  expect(gigabytes('int4')).toEqual([55.1, 17.1]);
  expect(gigabytes('int8')).toEqual([55.1, 22.6]);
  expect(() => openModel(temporaryFolder(), folder)).toThrow(/qwen-supervisor model add/);
});

test.each(['fused', 'decomposed'] as const)(
  'every part of its transformer, with %s attention, is made of what graphics cards compute, and nothing is cast',
  (attention) => {
    const { transformer } = buildGraphs(openCheckpoint(qwenImage()), { attention });
    expect(transformer).toHaveLength(6);
    for (const { graph } of transformer) {
      const places = new Map(graph.weights.map(({ name }) => [name, { location: 'x', offset: 0, length: 0 }]));
      const nodes = nodesOf(graph.encode(places));
      expect(nodes.length).toBeGreaterThan(500);
      expect([...new Set(nodes.map(({ op }) => op))].filter((op) => !ON_CARDS.includes(op))).toEqual([]);
      // A card binds about a dozen buffers at once.
      expect(Math.max(...nodes.map(({ inputs, outputs }) => Math.max(inputs, outputs)))).toBeLessThanOrEqual(10);
    }
  },
);
