import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gaussianNoise } from '@qwen-supervisor/inference/recipe/noise';
import { Tensors } from '@qwen-supervisor/model/checkpoint';
import { linear } from '@qwen-supervisor/model/layers';
import { OnnxGraph } from '@qwen-supervisor/model/onnx';
import { dequantiseRows, quantiseRows, rowSizes } from '@qwen-supervisor/model/prepare/quantise';
import { readSafetensorsHeader } from '@qwen-supervisor/model/safetensors';
import { placeWeights } from '@qwen-supervisor/model/weights';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { expect, test } from 'vitest';
import { safetensorsBytes, temporaryFolder } from '../../fixture-files.js';

const [ROWS, COLUMNS, N] = [96, 256, 40];

test.each([
  [4, 0, 1e-5],
  [4, 4, 1e-2],
  [8, 0, 1e-5],
  [8, 4, 1e-2],
] as const)('%s bits at accuracy %s: off by at most %s of the product in float64', async (bits, accuracy, limit) => {
  const sizes = rowSizes(COLUMNS, bits);
  const codes = new Uint8Array(ROWS * sizes.codes);
  const scales = new Float32Array(ROWS * sizes.scales);
  quantiseRows(gaussianNoise(1, ROWS * COLUMNS), ROWS, COLUMNS, bits, 'standard', codes, scales);
  const weights = dequantiseRows(codes, scales, ROWS, COLUMNS, bits);
  const bias = gaussianNoise(2, ROWS);
  const x = gaussianNoise(3, N * COLUMNS);
  const session = await sessionOf(codes, scales, bias, bits, accuracy);
  const { y } = await session.run({ x: new Tensor('float32', x, [N, COLUMNS]) });
  let [difference, norm] = [0, 0];
  (y as Tensor & { data: Float32Array }).data.forEach((value, i) => {
    const [n, row] = [Math.floor(i / ROWS), i % ROWS];
    let sum = bias[row] as number;
    for (let c = 0; c < COLUMNS; c++) sum += (x[n * COLUMNS + c] as number) * (weights[row * COLUMNS + c] as number);
    difference += (value - sum) ** 2;
    norm += sum ** 2;
  });
  expect(Math.sqrt(difference / norm)).toBeLessThan(limit);
  await session.release();
});

async function sessionOf(codes: Uint8Array, scales: Float32Array, bias: Float32Array, bits: 4 | 8, accuracy: 0 | 4) {
  const [blocks, ofCodes, ofScales] = [COLUMNS / 32, codes.length, codes.length + scales.byteLength];
  const header = {
    'layer.weight.codes': { dtype: 'U8', shape: [ROWS, blocks, 4 * bits], data_offsets: [0, ofCodes] },
    'layer.weight.scales': { dtype: 'F32', shape: [ROWS * blocks], data_offsets: [ofCodes, ofScales] },
    'layer.bias': { dtype: 'F32', shape: [ROWS], data_offsets: [ofScales, ofScales + bias.byteLength] },
  };
  const file = join(temporaryFolder(), 'layer.safetensors');
  const floats = [scales, bias].map((values) => new Uint8Array(values.buffer));
  writeFileSync(file, safetensorsBytes(header, Buffer.concat([codes, ...floats])));
  const g = new OnnxGraph('layer');
  const tensors = new Tensors('transformer', readSafetensorsHeader(file));
  const x = g.input('x', ['n', COLUMNS]);
  g.output('y', linear(g, tensors, x, 'layer', [ROWS, COLUMNS], { accuracy }), ['n', ROWS]);
  const { model, folder } = placeWeights(g, temporaryFolder(), () => {});
  const extra = { session: { model_external_initializers_file_folder_path: folder } };
  return InferenceSession.create(model, { extra, intraOpNumThreads: 2 });
}
