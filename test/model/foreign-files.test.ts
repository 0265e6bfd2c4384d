/** What people name as a model: folders that they downloaded in some way, and files that are something else. */
import { cpSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { openCheckpoint } from '@qwen-supervisor/model/checkpoint';
import { checkpointFolder } from '@qwen-supervisor/model/checkpoint-folder';
import { refuseForeign } from '@qwen-supervisor/model/foreign-files';
import { buildGraphs } from '@qwen-supervisor/model/graphs';
import { describe, expect, test } from 'vitest';
import { copyCheckpoint, OTHER, POCKET, safetensorsBytes, temporaryFolder } from '../fixture-files.js';

const VAE = 'vae/diffusion_pytorch_model.safetensors';

/** The code and the words with which a damaged copy of the pocket model is refused. */
function refusal(damage: (folder: string) => void): string {
  const folder = copyCheckpoint(POCKET);
  damage(folder);
  try {
    buildGraphs(openCheckpoint(folder));
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    return `${code} ${message}`;
  }
  return 'taken';
}

function editHeader(file: string, change: (header: Record<string, { dtype: string; shape: number[] }>) => void): void {
  const bytes = readFileSync(file);
  const end = 8 + Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString('utf8', 8, end));
  change(header);
  writeFileSync(file, safetensorsBytes(header, bytes.subarray(end)));
}

function editJson(file: string, more: object): void {
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), ...more }));
}

/** The first tensor as bytes, of the same length. */
const asBytes = (dtype: string) => (folder: string) =>
  editHeader(join(folder, VAE), (header) => {
    const [entry] = Object.entries(header).flatMap(([name, value]) => (name === '__metadata__' ? [] : [value]));
    const [begin, end] = (entry as unknown as { data_offsets: [number, number] }).data_offsets;
    Object.assign(entry as object, { dtype, shape: [end - begin, 1] });
  });

describe('a file that is something else says what it is, and what to do', () => {
  test.each<[string, RegExp, (folder: string) => void]>([
    ['fp8', /^MODEL_UNSUPPORTED .*quantised/, asBytes('F8_E4M3')],
    ['a type of tomorrow', /^MODEL_UNSUPPORTED .*F8_E8M0/, asBytes('F8_E8M0')],
    ['4 bits', /^MODEL_UNSUPPORTED .*4 bits/, asBytes('F4')],
    ['bytes, as bitsandbytes writes', /^MODEL_UNSUPPORTED .*quantised/, asBytes('U8')],
    [
      'what its config calls quantised',
      /^MODEL_UNSUPPORTED .*quantised by bitsandbytes/,
      (f) => editJson(join(f, 'transformer/config.json'), { quantization_config: { quant_method: 'bitsandbytes' } }),
    ],
    [
      'a Git LFS pointer',
      /^MODEL_NOT_DOWNLOADED .*LFS/,
      (f) => writeFileSync(join(f, VAE), 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n'),
    ],
    [
      'a pointer in place of a config',
      /^MODEL_NOT_DOWNLOADED .*LFS/,
      (f) => writeFileSync(join(f, 'vae/config.json'), 'version https://git-lfs.github.com/spec/v1\n'),
    ],
    [
      'a web page',
      /^MODEL_NOT_DOWNLOADED .*web page/,
      (f) => writeFileSync(join(f, VAE), '<!DOCTYPE html><html>Sign in</html>'),
    ],
    ['GGUF', /^MODEL_UNSUPPORTED .*GGUF/, (f) => writeFileSync(join(f, VAE), 'GGUF\x03\0\0\0')],
    ['a pickle', /^MODEL_UNSUPPORTED .*pickle/, (f) => writeFileSync(join(f, VAE), 'PK\x03\x04')],
    [
      'a folder with pickles alone',
      /^MODEL_UNSUPPORTED .*diffusion_pytorch_model\.bin/,
      (f) => renameSync(join(f, VAE), join(f, 'vae/diffusion_pytorch_model.bin')),
    ],
    ['a header of gigabytes', /^MODEL_INVALID .*plausible/, (f) => writeFileSync(join(f, VAE), Buffer.alloc(64, 0x10))],
  ])('%s', (_what, words, damage) => {
    expect(refusal(damage)).toMatch(words);
  });

  test('a pipe, a device or a folder in place of a file is not waited for', () => {
    const zero = (name: string) => (folder: string) => {
      rmSync(join(folder, name));
      symlinkSync('/dev/zero', join(folder, name));
    };
    for (const name of ['model_index.json', 'vae/config.json', VAE, 'tokenizer/vocab.json'].filter((one) => one))
      if (name !== 'tokenizer/vocab.json')
        expect(refusal(zero(name)), name).toMatch(/^MODEL_INVALID .*no regular file/);
    expect(refusal((f) => rmSync(join(f, VAE)))).toMatch(/^MODEL_NOT_FOUND/);
  });

  test('a file in place of the folder', () => {
    expect(() => openCheckpoint(join(POCKET, VAE))).toThrow(expect.objectContaining({ code: 'MODEL_UNSUPPORTED' }));
    const gguf = join(temporaryFolder(), 'qwen.gguf');
    writeFileSync(gguf, 'GGUF');
    expect(() => openCheckpoint(gguf)).toThrow(/GGUF/);
  });
});

test('a length that looks like another format is still a length', () => {
  for (const length of [0x0280, 0x20280, 0x4b50]) {
    const head = Buffer.alloc(8);
    head.writeBigUInt64LE(BigInt(length));
    expect(() => refuseForeign('x', Buffer.concat([head, Buffer.from('{"a":')]))).not.toThrow();
  }
});

test('a folder with one variant of the weights alone is that variant', () => {
  const variant = (folder: string) => {
    renameSync(join(folder, VAE), join(folder, 'vae/diffusion_pytorch_model.fp16.safetensors'));
  };
  expect(refusal(variant)).toBe('taken');
  const shards = copyCheckpoint(OTHER);
  const text = join(shards, 'text_encoder');
  renameSync(join(text, 'model.safetensors.index.json'), join(text, 'model.safetensors.index.fp16.json'));
  expect(openCheckpoint(shards).tensors.text_encoder.files()).toHaveLength(3);
});

describe('the cache of the Hugging Face tools', () => {
  function cache(refs: string | null, ...snapshots: string[]): { hub: string; model: string } {
    const hub = join(temporaryFolder(), 'hub');
    const model = join(hub, 'models--me--pocket');
    for (const [i, name] of snapshots.entries()) {
      const snapshot = join(model, 'snapshots', name);
      mkdirSync(snapshot, { recursive: true });
      if (i > 0) continue;
      // Its files are links into one folder of blobs.
      cpSync(POCKET, join(model, 'blobs'), { recursive: true });
      for (const entry of readdirSync(POCKET))
        symlinkSync(relative(snapshot, join(model, 'blobs', entry)), join(snapshot, entry));
    }
    if (refs !== null) {
      mkdirSync(join(model, 'refs'), { recursive: true });
      writeFileSync(join(model, 'refs', 'main'), refs);
    }
    return { hub, model };
  }

  test('is followed by the folder of the model, to the snapshot that is current', () => {
    const { model } = cache('abc', 'abc', 'old');
    expect(checkpointFolder(model)).toBe(join(model, 'snapshots', 'abc'));
    buildGraphs(openCheckpoint(model));
    const alone = cache(null, 'only');
    expect(checkpointFolder(alone.model)).toBe(join(alone.model, 'snapshots', 'only'));
  });

  test('is followed by the name of the model', () => {
    const { hub, model } = cache('abc', 'abc');
    const named = join(temporaryFolder(), 'me', 'pocket');
    expect(checkpointFolder(named, { HF_HUB_CACHE: hub })).toBe(join(model, 'snapshots', 'abc'));
    expect(() => checkpointFolder(named, { HF_HUB_CACHE: '/nowhere' })).toThrow(/no me\/pocket in \/nowhere/);
  });

  test('says which snapshots there are where none is meant', () => {
    const { model } = cache('gone', 'a', 'b');
    expect(() => checkpointFolder(model)).toThrow(/there are a, b/);
  });
});
