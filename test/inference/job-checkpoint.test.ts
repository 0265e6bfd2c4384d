import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CheckpointWriter, findCheckpoint, fitOf } from '@qwen-supervisor/inference/job-checkpoint';
import { describe, expect, test } from 'vitest';
import { temporaryFolder } from '../fixture-files.js';

const REQUEST = {
  prompt: 'a fox',
  negativePrompt: ' ',
  width: 64,
  height: 64,
  numInferenceSteps: 20,
  trueCfgScale: 4,
  seed: 1,
  initImage: null,
  strength: null,
  mask: null,
};
const CPU = { device: 'cpu', card: 'cpu a processor' };
const FIT = fitOf(REQUEST, 'model', 'onnxruntime 1.0', CPU);
const latents = (step: number) => Float32Array.from({ length: 1024 }, (_, i) => step + i / 7);

async function written(steps: number[], dataDir = temporaryFolder()): Promise<string> {
  const writer = new CheckpointWriter(dataDir, 'job_1', FIT);
  for (const step of steps) await writer.write({ step, latents: latents(step) });
  return dataDir;
}

const names = (dataDir: string) => readdirSync(join(dataDir, 'checkpoints')).sort();

test('the newest checkpoint comes back bit by bit', async () => {
  const dataDir = await written([1, 2, 3]);
  expect(findCheckpoint(dataDir, 'job_1', FIT, 3, false)).toEqual({
    checkpoint: { step: 3, latents: latents(3) },
    reason: null,
  });
});

test('of each job the newest and the newest that was synced are kept, others are not', async () => {
  const dataDir = await written([1, 2, 3, 4]);
  expect(names(dataDir)).toEqual(['job_1.1.ckpt', 'job_1.4.ckpt']);
});

test('a job that has none begins at the beginning, and if steps were completed the reason says that they are lost', () => {
  const dataDir = temporaryFolder();
  expect(findCheckpoint(dataDir, 'job_1', FIT, 0, false)).toEqual({ checkpoint: null, reason: null });
  expect(findCheckpoint(dataDir, 'job_1', FIT, 5, false)).toEqual({
    checkpoint: null,
    reason: 'its checkpoint is gone',
  });
});

test.each([
  ['empty', (bytes: Buffer) => bytes.subarray(0, 0)],
  ['cut off', (bytes: Buffer) => bytes.subarray(0, bytes.length - 1)],
  ['with one bit turned', (bytes: Buffer) => bytes.map((byte, i) => (i === 200 ? byte ^ 1 : byte))],
  ['of zeros, as a power cut leaves them', (bytes: Buffer) => Buffer.alloc(bytes.length)],
])('one that is %s is passed over for the one before, with a reason', async (_title, damage) => {
  const dataDir = await written([1, 4]);
  const file = join(dataDir, 'checkpoints', 'job_1.4.ckpt');
  const { readFileSync } = await import('node:fs');
  writeFileSync(file, damage(readFileSync(file)));
  expect(findCheckpoint(dataDir, 'job_1', FIT, 4, false)).toEqual({
    checkpoint: { step: 1, latents: latents(1) },
    reason: 'the checkpoint of step 4 is damaged',
  });
});

test.each([
  [fitOf({ ...REQUEST, seed: 2 }, 'model', 'onnxruntime 1.0', CPU), /belongs to another request/],
  [fitOf({ ...REQUEST, trueCfgScale: 4.5 }, 'model', 'onnxruntime 1.0', CPU), /belongs to another request/],
  [fitOf(REQUEST, 'other', 'onnxruntime 1.0', CPU), /belongs to another model/],
  [fitOf(REQUEST, 'model', 'onnxruntime 1.1', CPU), /was computed with another runtime \(onnxruntime 1\.0/],
])('one that does not fit is not used: %#', async (fit, reason) => {
  const dataDir = await written([2]);
  expect(findCheckpoint(dataDir, 'job_1', fit, 2, false)).toEqual({
    checkpoint: null,
    reason: expect.stringMatching(reason),
  });
});

test('one that is older than the steps that were told is used, and the reason says so', async () => {
  const dataDir = await written([5]);
  expect(findCheckpoint(dataDir, 'job_1', FIT, 7, false)).toMatchObject({
    checkpoint: { step: 5 },
    reason: 'the last checkpoint is of step 5',
  });
});

test('one that is not used is removed, so that its name does not claim steps that are lost', async () => {
  const dataDir = await written([1, 4]);
  findCheckpoint(dataDir, 'job_1', fitOf(REQUEST, 'other', 'onnxruntime 1.0', CPU), 4, false);
  expect(names(dataDir)).toEqual([]);
});

test('a half-written file and those of other jobs are not looked at', async () => {
  const dataDir = temporaryFolder();
  mkdirSync(join(dataDir, 'checkpoints'));
  for (const name of ['job_1.9.ckpt.tmp', 'job_11.9.ckpt', 'job_1.x.ckpt'])
    writeFileSync(join(dataDir, 'checkpoints', name), '');
  await written([2], dataDir);
  expect(findCheckpoint(dataDir, 'job_1', FIT, 2, false).checkpoint?.step).toBe(2);
  expect(names(dataDir)).toHaveLength(4);
});

test('a folder that cannot be written is an error of the file system, and nothing half is left', async () => {
  const dataDir = join(temporaryFolder(), 'file');
  writeFileSync(dataDir, '');
  await expect(written([1], dataDir)).rejects.toMatchObject({ code: 'ENOTDIR' });
});

describe('on another card', () => {
  const on = (device: string, name: string, runtime = 'onnxruntime 1.0, fused attention on cuda') =>
    fitOf(REQUEST, 'model', runtime, { device, card: `cuda ${name}` });
  const writtenBy = async (fit: ReturnType<typeof fitOf>) => {
    const dataDir = temporaryFolder();
    await new CheckpointWriter(dataDir, 'job_1', fit).write({ step: 2, latents: latents(2) });
    return dataDir;
  };

  test('that is equal a picture goes on, whatever its number, and whoever wants the bits has them', async () => {
    const dataDir = await writtenBy(on('cuda:0', 'RTX 4090'));
    const found = findCheckpoint(dataDir, 'job_1', on('cuda:1', 'RTX 4090'), 2, true);
    expect(found).toMatchObject({ checkpoint: { step: 2 }, reason: null });
  });

  test('of another kind it goes on, or begins anew where that is wanted', async () => {
    const dataDir = await writtenBy(on('cuda:0', 'RTX 4090'));
    const other = on('cuda:1', 'RTX 3090', 'onnxruntime 1.0, decomposed attention on cuda');
    expect(findCheckpoint(dataDir, 'job_1', other, 2, false)).toMatchObject({ checkpoint: { step: 2 }, reason: null });
    expect(findCheckpoint(dataDir, 'job_1', other, 2, true)).toMatchObject({
      checkpoint: null,
      reason: 'the checkpoint of step 2 was computed on another kind of card (cuda RTX 4090)',
    });
  });

  test('what an earlier version has written, with the number of the card, fits', async () => {
    const { card: _, ...old } = on('cuda:0', '', 'onnxruntime 1.0, fused attention on cuda:0');
    const dataDir = await writtenBy(old as ReturnType<typeof fitOf>);
    expect(findCheckpoint(dataDir, 'job_1', on('cuda:0', 'RTX 4090'), 2, true)).toMatchObject({
      checkpoint: { step: 2 },
    });
    const again = await writtenBy(old as ReturnType<typeof fitOf>);
    expect(findCheckpoint(again, 'job_1', on('cuda:1', 'RTX 4090'), 2, true).reason).toContain('(cuda:0)');
  });
});
