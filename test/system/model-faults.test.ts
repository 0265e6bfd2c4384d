/** Checkpoints as people have them, and as they should not: what `model add` makes of each. */
import { execFileSync } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { describe, expect, test } from 'vitest';
import { copyCheckpoint, POCKET, REPOSITORY, temporaryFolder } from '../fixture-files.js';
import { cli, startProduct } from './product.js';

const BIN = join(REPOSITORY, 'bin/qwen-supervisor.js');
const SHARD = 'transformer/diffusion_pytorch_model-00002-of-00003.safetensors';
const isRoot = process.getuid?.() === 0;

const model = (dataDir: string, ...args: string[]) => cli(['model', ...args, '--data-dir', dataDir]);
const list = async (dataDir: string) => JSON.parse((await model(dataDir, 'list', '--json')).stdout);

/** As the tools of Hugging Face keep it: blobs by their digest, and a snapshot of links to them. */
function huggingFaceCache(): string {
  const root = join(temporaryFolder(), 'models--Qwen--Pocket');
  const snapshot = join(root, 'snapshots/0123abcd');
  mkdirSync(join(root, 'blobs'), { recursive: true });
  const files = readdirSync(POCKET, { recursive: true, encoding: 'utf8' });
  for (const [n, name] of files.filter((file) => statSync(join(POCKET, file)).isFile()).entries()) {
    const blob = join(root, 'blobs', `blob${n}`);
    cpSync(join(POCKET, name), blob);
    mkdirSync(join(snapshot, name, '..'), { recursive: true });
    symlinkSync(blob, join(snapshot, name));
  }
  return snapshot;
}

test('a cache of links is added, and draws', async () => {
  const dataDir = temporaryFolder();
  expect((await model(dataDir, 'add', huggingFaceCache(), '--name', 'mine')).code).toBe(0);
  const product = await startProduct(['--model', 'mine'], dataDir);
  const job = await product.submit({ prompt: 'a fox', numInferenceSteps: 2 });
  expect(await product.ended(job.id)).toMatchObject({ status: 'done' });
  await product.clean();
});

test('folders may be called as their owners like', async () => {
  const folder = join(temporaryFolder(), "Ein Modell, 模型 'à moi' $HOME");
  const dataDir = join(temporaryFolder(), 'données – 数据');
  cpSync(POCKET, folder, { recursive: true });
  expect((await model(dataDir, 'add', folder, '--name', 'mine')).code).toBe(0);
  const product = await startProduct(['--model', 'mine'], dataDir);
  await product.ready();
  await product.clean();
});

test.skipIf(!isRoot)('a checkpoint that cannot be written to is added', async () => {
  const [folder, dataDir] = [copyCheckpoint(POCKET), temporaryFolder()];
  const script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"';
  const add = [process.execPath, BIN, 'model', 'add', folder, '--name', 'mine', '--data-dir', dataDir];
  const { exitCode } = await execa('unshare', ['-m', 'sh', '-c', script, 'sh', folder, ...add], { reject: false });
  expect(exitCode).toBe(0);
});

test.skipIf(!isRoot)('a disk that is full is told, and with room it goes on', async () => {
  const dataDir = temporaryFolder();
  const add = [process.execPath, BIN, 'model', 'add', POCKET, '--name', 'mine', '--data-dir', dataDir];
  const script = `mount -t tmpfs -o size=4m none "$1" && shift
    "$@"; echo "code $?"; mount -o remount,size=64m "${dataDir}" && "$@"`;
  const { exitCode, all } = await execa('unshare', ['-m', 'sh', '-c', script, 'sh', dataDir, ...add], {
    reject: false,
    all: true,
  });
  expect(all).toContain('DISK_FULL');
  expect(all).toContain('code 94');
  expect(exitCode).toBe(0);
});

describe('nothing is registered for', () => {
  const cases: [what: string, harm: (folder: string) => void, code: string][] = [
    ['a shard that was cut off', (folder) => truncateSync(join(folder, SHARD), 100_000), 'MODEL_TRUNCATED'],
    [
      'shards in each other’s places',
      (folder) => {
        const other = SHARD.replace('00002-of', '00001-of');
        renameSync(join(folder, SHARD), join(folder, 'x'));
        renameSync(join(folder, other), join(folder, SHARD));
        renameSync(join(folder, 'x'), join(folder, other));
      },
      'MODEL_INVALID',
    ],
    ['a missing config', (folder) => rmSync(join(folder, 'vae/config.json')), 'MODEL_NOT_FOUND'],
    [
      'a pipe in place of a weight file',
      (folder) => {
        rmSync(join(folder, SHARD));
        execFileSync('mkfifo', [join(folder, SHARD)]);
      },
      'MODEL_INVALID',
    ],
    [
      'a device in place of a weight file',
      (folder) => {
        rmSync(join(folder, SHARD));
        symlinkSync('/dev/zero', join(folder, SHARD));
      },
      'MODEL_INVALID',
    ],
    [
      'a tensor whose place overlaps another',
      (folder) => {
        const file = join(folder, SHARD);
        const bytes = readFileSync(file);
        const length = Number(bytes.readBigUInt64LE());
        const header = bytes.subarray(8, 8 + length).toString();
        const [, first, second] = /"data_offsets":\[(\d+),(\d+)\]/.exec(header) ?? [];
        const moved = header.replace(`[${first},${second}]`, `[${Number(first) + 2},${second}]`);
        writeFileSync(
          file,
          Buffer.concat([
            bytes.subarray(0, 8),
            Buffer.from(moved.padEnd(length).slice(0, length)),
            bytes.subarray(8 + length),
          ]),
        );
      },
      'MODEL_INVALID',
    ],
  ];
  test.each(cases)('%s', async (_, harm, code) => {
    const [folder, dataDir] = [copyCheckpoint(POCKET), temporaryFolder()];
    harm(folder);
    const { stderr, code: exit } = await model(dataDir, 'add', folder);
    expect(stderr).toContain(code);
    expect(exit).toBeGreaterThan(0);
    expect(await list(dataDir)).toEqual([]);
  });
});
