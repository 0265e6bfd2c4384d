/** A model that was distilled by a LoRA: merged where it is added, and in the modulation when it is drawn with. */
import { cpSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gaussianNoise } from '@qwen-supervisor/inference/recipe/noise';
import { openCheckpoint } from '@qwen-supervisor/model/checkpoint';
import { addLora } from '@qwen-supervisor/model/prepare/lora';
import { readFloat32, readSafetensorsHeader } from '@qwen-supervisor/model/safetensors';
import type { Job } from '@qwen-supervisor/protocol/job';
import { expect, test } from 'vitest';
import { copyCheckpoint, POCKET, temporaryFolder, writeFloat32Safetensors } from '../fixture-files.js';
import { cli, type Product, startProduct, until } from './product.js';

const RANK = 4;
/** In the attention, which is merged; in the modulation, which is not; and where the last block reads nothing. */
const LAYERS = [
  'transformer_blocks.0.attn.to_q',
  'transformer_blocks.3.img_mlp.net.2',
  'transformer_blocks.5.txt_mod.1',
  'transformer_blocks.7.img_mod.1',
  'transformer_blocks.7.txt_mlp.net.0.proj',
  'norm_out.linear',
];
const FOX = { prompt: 'a fox on a teal background', seed: 3 };

function additions() {
  const shapes = openCheckpoint(POCKET).tensors.transformer.linears();
  return LAYERS.map((layer, i) => {
    const [rows, columns] = shapes.get(layer) as [number, number];
    const noise = (seed: number, length: number) => gaussianNoise(seed, length).map((value) => value / 10);
    return { layer, down: noise(2 * i, RANK * columns), up: noise(2 * i + 1, rows * RANK), rows, columns };
  });
}

function writeLora(): string {
  const file = join(temporaryFolder(), 'Qwen-Image-Lightning-4steps-V1.0.safetensors');
  const tensors = additions().flatMap(({ layer, down, up, rows, columns }) => [
    { name: `${layer}.lora_down.weight`, shape: [RANK, columns], data: down },
    { name: `${layer}.lora_up.weight`, shape: [rows, RANK], data: up },
    { name: `${layer}.alpha`, shape: [], data: Float32Array.of(8) },
  ]);
  writeFloat32Safetensors(file, new Map(tensors.map((tensor) => [tensor.name, tensor])));
  return file;
}

/** The pocket model as the LoRA makes it: weights merged in its files, and the schedule in its config. */
function mergedCheckpoint(): string {
  const folder = copyCheckpoint(POCKET);
  const additionOf = new Map(additions().map((addition) => [`${addition.layer}.weight`, addition]));
  for (const file of openCheckpoint(folder).tensors.transformer.files()) {
    const merged = [...readSafetensorsHeader(file).values()].map((entry) => {
      const data = readFloat32(entry);
      const addition = additionOf.get(entry.name);
      if (addition) addLora(data, 0, addition.columns, { ...addition, rank: RANK, scale: 8 / RANK });
      return [entry.name, { shape: entry.shape, data }] as const;
    });
    writeFloat32Safetensors(file, new Map(merged));
  }
  const scheduler = join(folder, 'scheduler/scheduler_config.json');
  const shift = { base_shift: Math.log(3), max_shift: Math.log(3), shift_terminal: null };
  writeFileSync(scheduler, JSON.stringify({ ...JSON.parse(readFileSync(scheduler, 'utf8')), ...shift }));
  return folder;
}

async function drawn(product: Product, request: object): Promise<Job> {
  return product.ended((await product.submit({ ...FOX, ...request })).id);
}

test('it draws what the merged weights draw, in its own steps, without guidance, and says what it cannot do', async () => {
  const dataDir = temporaryFolder();
  const added = await cli(
    ['model', 'add', POCKET, '--quantize', 'none', '--lightning', writeLora(), '--data-dir', dataDir, '--json'],
    {},
  );
  expect(added.stderr).not.toContain('error');
  expect(JSON.parse(added.stdout)).toMatchObject({ name: 'pocket-lightning-float32' });
  const omit = ['--picture-metadata', 'omit'];
  const merged = await startProduct(['--model', mergedCheckpoint(), ...omit]);
  const expected = await drawn(merged, { numInferenceSteps: 4, trueCfgScale: 1 });
  await merged.clean();
  const product = await startProduct(['--model', 'pocket-lightning-float32', ...omit], dataDir);
  try {
    const job = await drawn(product, {});
    expect(job).toMatchObject({ status: 'done', numInferenceSteps: 4, trueCfgScale: 1 });
    expect(job.images[0]?.sha256).toBe(expected.images[0]?.sha256);
    const refused = await product.call('/api/v1/jobs', { ...FOX, numInferenceSteps: 20 });
    expect([refused.status, JSON.stringify(refused.json)]).toEqual([400, expect.stringContaining('4 or 8 steps')]);
    const models = (await product.call('/api/v1/models')).json as { models: object[] };
    expect(models.models[0]).toMatchObject({
      id: 'pocket-lightning',
      distilled: { steps: [4, 8] },
      presets: { high: { numInferenceSteps: 8, trueCfgScale: 1 } },
    });
    const { json } = await product.call('/sdapi/v1/txt2img', {
      ...FOX,
      steps: 20,
      cfg_scale: 7,
      width: 64,
      height: 64,
    });
    const info = JSON.parse((json as { info: string }).info);
    expect(info).toMatchObject({ steps: 4, cfg_scale: 1 });
    expect(info.warnings).toEqual([expect.stringContaining('20 steps'), expect.stringContaining('guidance of 7')]);
    const classic = await product.call('/generate/text-to-image', { ...FOX, num_inference_steps: 50, cfg_scale: 4 });
    expect(classic.headers.get('warning')).toContain('50 steps were not made');
  } finally {
    await product.clean();
  }
});

test('jobs that wait when it takes the place of another are not drawn otherwise than they were asked for', async () => {
  const dataDir = temporaryFolder();
  await cli(['model', 'add', POCKET, '--lightning', writeLora(), '--name', 'mine', '--data-dir', dataDir]);
  const config = join(temporaryFolder(), 'config.toml');
  writeFileSync(config, '');
  const product = await startProduct(['--config', config], dataDir);
  try {
    const running = await product.submit({ ...FOX, numInferenceSteps: 400 });
    const waiting = await product.submit(FOX);
    const fitting = await product.submit({ ...FOX, numInferenceSteps: 4, trueCfgScale: 1 });
    await until(async () => ((await product.job(running.id)).step > 4 ? true : null));
    writeFileSync(config, 'model = "mine"\n');
    expect(await cli(['reload', '--data-dir', dataDir])).toMatchObject({ code: 0 });
    for (const { id } of [running, waiting])
      expect(await product.ended(id)).toMatchObject({
        status: 'failed',
        error: { code: 'REQUEST_INVALID', message: expect.stringContaining('draws in 4 or 8 steps') },
      });
    expect(await product.ended(fitting.id)).toMatchObject({ status: 'done' });
    expect((await product.call(`/api/v1/jobs/${waiting.id}/retry`, {})).status).toBe(400);
  } finally {
    await product.clean();
  }
});

test('its steps are those of the name that was given, also where that is a link to a file called by its digest', async () => {
  const [dataDir, folder] = [temporaryFolder(), temporaryFolder()];
  const blob = join(folder, '0123abcd');
  cpSync(writeLora(), blob);
  const link = join(folder, 'qwen_image_2512_lightning_4steps_v1.safetensors');
  symlinkSync(blob, link);
  await cli(['model', 'add', POCKET, '--lightning', link, '--name', 'mine', '--data-dir', dataDir]);
  const product = await startProduct(['--model', 'mine'], dataDir);
  expect(await product.submit(FOX)).toMatchObject({ numInferenceSteps: 4 });
  await product.clean();
  const refused = await cli(['model', 'add', POCKET, '--lightning', blob, '--name', 'other', '--data-dir', dataDir]);
  expect(refused.stderr).toContain("neither '4steps' nor '8steps'");
});

test('a LoRA that is another file than when the model was added is found', async () => {
  const dataDir = temporaryFolder();
  const file = writeLora();
  await cli(['model', 'add', POCKET, '--lightning', file, '--name', 'mine', '--data-dir', dataDir]);
  writeFileSync(file, readFileSync(file));
  const started = await cli(['start', '--model', 'mine', '--port', '0', '--data-dir', dataDir]);
  expect(started).toMatchObject({ code: 65 });
  expect(started.stderr).toContain('MODEL_CHANGED');
});

test.each([
  ['of another model', { 'single_blocks.0.linear.lora_down.weight': [4, 8] }, 'LORA_INVALID'],
  ['without tensors', {}, 'LORA_INVALID'],
])('a LoRA %s is refused, and nothing is added', async (_, shapes, code) => {
  const dataDir = temporaryFolder();
  const file = join(temporaryFolder(), 'x-8steps.safetensors');
  const tensors = Object.entries(shapes).map(([name, shape]) => [name, { shape, data: new Float32Array(32) }] as const);
  writeFloat32Safetensors(file, new Map(tensors));
  const result = await cli(['model', 'add', POCKET, '--lightning', file, '--data-dir', dataDir]);
  expect(result.stderr).toContain(code);
  expect(JSON.parse((await cli(['model', 'list', '--json', '--data-dir', dataDir])).stdout)).toEqual([]);
});
