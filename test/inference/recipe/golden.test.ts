import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { checkModel, type TensorCheck } from '@qwen-supervisor/inference/model-check';
import { AMPLE, loadSessions } from '@qwen-supervisor/inference/recipe/sessions';
import { openCheckpoint } from '@qwen-supervisor/model/checkpoint';
import { readFloat32, readSafetensorsHeader } from '@qwen-supervisor/model/safetensors';
import { describe, expect, test } from 'vitest';
import {
  copyCheckpoint,
  OTHER,
  OTHER_GOLDEN,
  POCKET,
  POCKET_GOLDEN,
  temporaryFolder,
  writeFloat32Safetensors,
} from '../../fixture-files.js';

async function check(folder: string, golden: string): Promise<TensorCheck[]> {
  const checkpoint = openCheckpoint(folder);
  const sessions = await loadSessions(checkpoint, { cacheFolder: temporaryFolder(), threads: 2, plan: AMPLE });
  const checks: TensorCheck[] = [];
  await checkModel(checkpoint, sessions, golden, (result) => checks.push(result));
  await sessions.release();
  return checks;
}

const beyond = (checks: TensorCheck[]) => checks.filter(({ ok }) => !ok);

describe('golden tensors of diffusers', () => {
  test('the pocket model reproduces all of them', async () => {
    const checks = await check(POCKET, POCKET_GOLDEN);
    expect(beyond(checks)).toEqual([]);
    expect(checks).toHaveLength(37);
  });

  test('a checkpoint of other sizes in fp16 shards reproduces all of them', async () => {
    expect(beyond(await check(OTHER, OTHER_GOLDEN))).toEqual([]);
  });

  test('so it does as single fp32 files, with the new tensor names, flat config and tokenizer.json', async () => {
    expect(beyond(await check(inOtherLayout(), OTHER_GOLDEN))).toEqual([]);
  });

  test('a changed weight is found and named', async () => {
    const folder = inOtherLayout();
    rewrite(join(folder, 'transformer/diffusion_pytorch_model.safetensors'), (name, data) => {
      if (name === 'proj_out.bias') data[0] = (data[0] as number) + 0.5;
    });
    const names = beyond(await check(folder, OTHER_GOLDEN)).map(({ tensor }) => tensor);
    expect(names).toContain('transformer.128x128.prompt0.t1.0.velocity');
    expect(names).not.toContain('text.0');
  });

  test('a golden folder that lacks a file is refused rather than passed', async () => {
    const golden = temporaryFolder();
    cpSync(POCKET_GOLDEN, golden, { recursive: true });
    rmSync(join(golden, 'vae.safetensors'));
    await expect(check(POCKET, golden)).rejects.toMatchObject({ code: 'GOLDEN_INVALID' });
  });
});

/** The second checkpoint, written as other tools write: every way in which layouts differ, at once. */
function inOtherLayout(): string {
  const folder = copyCheckpoint(OTHER);
  for (const [component, stem] of [
    ['transformer', 'diffusion_pytorch_model'],
    ['text_encoder', 'model'],
    ['vae', 'diffusion_pytorch_model'],
  ] as const) {
    const rename = (name: string) =>
      component === 'text_encoder' ? name.replace(/^model\.(?!language_model|visual)/, 'model.language_model.') : name;
    merge(join(folder, component), stem, rename);
  }
  const configFile = join(folder, 'text_encoder/config.json');
  const { text_config: text, ...config } = JSON.parse(readFileSync(configFile, 'utf8'));
  const { rope_parameters: rope, ...sizes } = text;
  const flat = {
    ...config,
    ...sizes,
    rope_theta: rope.rope_theta,
    rope_scaling: { type: 'mrope', mrope_section: rope.mrope_section },
  };
  writeFileSync(configFile, JSON.stringify(flat));

  const tokenizer = join(folder, 'tokenizer');
  const vocab = JSON.parse(readFileSync(join(tokenizer, 'vocab.json'), 'utf8'));
  const merges = readFileSync(join(tokenizer, 'merges.txt'), 'utf8').split('\n').slice(1).filter(Boolean);
  const added = JSON.parse(readFileSync(join(tokenizer, 'added_tokens.json'), 'utf8')) as Record<string, number>;
  const split =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  const json = {
    version: '1.0',
    added_tokens: Object.entries(added).map(([content, id]) => ({
      id,
      content,
      special: true,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
    })),
    normalizer: { type: 'NFC' },
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex: split }, behavior: 'Isolated', invert: false },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false },
      ],
    },
    post_processor: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false },
    decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: '',
      end_of_word_suffix: '',
      fuse_unk: false,
      byte_fallback: false,
      vocab,
      merges,
    },
  };
  for (const file of readdirSync(tokenizer)) rmSync(join(tokenizer, file));
  writeFileSync(join(tokenizer, 'tokenizer.json'), JSON.stringify(json));
  return folder;
}

/** All weight files of a component as one float32 file. */
function merge(folder: string, stem: string, rename: (name: string) => string): void {
  const tensors = new Map<string, { shape: number[]; data: Float32Array }>();
  for (const file of readdirSync(folder).filter((name) => name.endsWith('.safetensors'))) {
    for (const [name, entry] of readSafetensorsHeader(join(folder, file))) {
      tensors.set(rename(name), { shape: entry.shape, data: readFloat32(entry) });
    }
    rmSync(join(folder, file));
  }
  rmSync(join(folder, `${stem}.safetensors.index.json`), { force: true });
  writeFloat32Safetensors(join(folder, `${stem}.safetensors`), tensors);
}

function rewrite(file: string, change: (name: string, data: Float32Array) => void): void {
  const tensors = new Map<string, { shape: number[]; data: Float32Array }>();
  for (const [name, entry] of readSafetensorsHeader(file)) {
    const data = readFloat32(entry);
    change(name, data);
    tensors.set(name, { shape: entry.shape, data });
  }
  writeFloat32Safetensors(file, tensors);
}
