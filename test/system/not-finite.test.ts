/** A model whose weights are no numbers, in each of its parts: no black picture is ever done. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Job } from '@qwen-supervisor/protocol/job';
import sharp from 'sharp';
import { expect, onTestFinished, test } from 'vitest';
import { copyCheckpoint, POCKET } from '../fixture-files.js';
import { cli, startProduct } from './product.js';

/** Writes NaN over the first values of a tensor, whatever its type. */
function spoil(folder: string, name: string): void {
  for (const file of readdirSync(folder).filter((one) => one.endsWith('.safetensors'))) {
    const bytes = readFileSync(join(folder, file));
    const dataStart = 8 + Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.toString('utf8', 8, dataStart));
    if (!header[name]) continue;
    const [begin, end] = header[name].data_offsets as [number, number];
    // All bits set are not a number in every format.
    bytes.fill(0xff, dataStart + begin, dataStart + Math.min(end, begin + 4096));
    return writeFileSync(join(folder, file), bytes);
  }
  throw new Error(`there is no ${name} in ${folder}`);
}

test.each<[string, string, string, RegExp, boolean]>([
  ['transformer', 'transformer', 'img_in.weight', /step 1 of 2/, false],
  ['decoder', 'vae', 'decoder.conv_in.weight', /decoded/, false],
  ['encoder', 'vae', 'encoder.conv_in.weight', /draw over/, true],
])(
  'in the %s, a job fails where the first such value appears, with its own code',
  async (_what, component, tensor, where, over) => {
    const model = copyCheckpoint(POCKET);
    spoil(join(model, component), tensor);
    const product = await startProduct(['--model', model]);
    onTestFinished(() => product.clean());
    await product.ready();
    const size = { width: 64, height: 64, numInferenceSteps: 2 };
    const picture = await sharp({ create: { width: 64, height: 64, channels: 3, background: 'red' } })
      .png()
      .toBuffer();
    const job = await product.submit({
      prompt: 'a fox',
      ...size,
      ...(over ? { initImage: picture.toString('base64') } : {}),
    });
    const ended: Job = await product.ended(job.id);
    expect(ended).toMatchObject({ status: 'failed', images: [], error: { code: 'VALUES_NOT_FINITE' } });
    expect(ended.error?.message).toMatch(where);
    if (over) return;
    const { code, stderr } = await cli(['generate', 'a fox', '--steps', '2', '--data-dir', product.dataDir]);
    expect([code, stderr]).toEqual([95, expect.stringContaining('VALUES_NOT_FINITE')]);
  },
);
