/**
 * The checkpoint's tokenizer: byte-level BPE, from `tokenizer.json` or from the older `vocab.json` and `merges.txt`.
 *
 * Special tokens (`<|im_end|>` …) exist in the template only: the same characters inside a prompt are plain text, so
 * that no prompt can close its turn and open another.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { readRegular } from '@qwen-supervisor/files/read-regular';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { z } from 'zod';
import { JSON_MAX, readJson, tokenizerFolder } from './checkpoint.js';
import { PROMPT_TEMPLATE } from './prompt-template.js';

export interface Tokenizer {
  /** Ids of the whole templated prompt. */
  encodePrompt(prompt: string): number[];
}

/** Qwen2's pre-tokenisation (transformers `tokenization_qwen2.py`), contractions spelled out: Node 20 has no `(?i:`. */
const SPLIT_PATTERN =
  "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const addedTokenSchema = z.object({
  id: z.int().min(0),
  content: z.string().min(1),
  special: z.boolean().default(false),
});
type AddedToken = z.infer<typeof addedTokenSchema>;

const tokenizerJsonSchema = z.looseObject({
  model: z.looseObject({ type: z.literal('BPE'), vocab: z.record(z.string(), z.int()), merges: z.array(z.unknown()) }),
  added_tokens: z.array(addedTokenSchema).default([]),
});

const vocabSchema = z.record(z.string(), z.int().min(0));

const tokenizerConfigSchema = z.object({
  added_tokens_decoder: z
    .record(z.string(), z.object({ content: z.string(), special: z.boolean().default(false) }))
    .default({}),
});

/**
 * Loads the tokenizer of a checkpoint, from `tokenizer/` or `processor/`.
 * @throws CodedError MODEL_NOT_FOUND, MODEL_INVALID
 */
export function loadTokenizer(checkpointFolder: string): Tokenizer {
  const folder = tokenizerFolder(checkpointFolder);
  const whole = existsSync(join(folder, 'tokenizer.json'));
  const json = whole ? parse(tokenizerJsonSchema, join(folder, 'tokenizer.json')) : composeJson(folder);
  const added = addedTokens(folder, json.added_tokens);
  const special = new Map(added.filter((token) => token.special).map((token) => [token.content, token.id]));
  const bpe = new HuggingFaceTokenizer(
    { ...json, added_tokens: added.filter((token) => !token.special).map(plainAddedToken), post_processor: null },
    {},
  );
  const encodeText = (text: string): number[] =>
    text === '' ? [] : bpe.encode(text, { add_special_tokens: false }).ids;

  return {
    encodePrompt(prompt) {
      const ids: number[] = [];
      for (const part of PROMPT_TEMPLATE.split(/(<\|im_(?:start|end)\|>)/).filter((part) => part !== '')) {
        const id = special.get(part);
        if (id !== undefined) ids.push(id);
        else if (part.startsWith('<|im_'))
          throw new CodedError('MODEL_INVALID', `${folder}: has no special token ${part}`);
        // A function, because '$&' in a prompt is not a pattern.
        else for (const token of encodeText(part.replace('{}', () => prompt))) ids.push(token);
      }
      return ids;
    },
  };
}

/** The `tokenizer.json` that the older files stand for. */
function composeJson(folder: string) {
  const vocab = parse(vocabSchema, join(folder, 'vocab.json'));
  const merges = readText(join(folder, 'merges.txt'))
    .split(/\r?\n/)
    .filter((line) => line !== '' && !line.startsWith('#version'))
    .map((line) => line.split(' '));
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [] as AddedToken[],
    normalizer: { type: 'NFC' },
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex: SPLIT_PATTERN }, behavior: 'Isolated', invert: false },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false },
      ],
    },
    decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false },
    model: {
      type: 'BPE' as const,
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
}

/** `tokenizer_config.json` wins over `added_tokens.json`, it over `tokenizer.json`: published files disagree. */
function addedTokens(folder: string, fromJson: AddedToken[]): AddedToken[] {
  const tokens = new Map(fromJson.map((token) => [token.content, token]));
  const addedFile = join(folder, 'added_tokens.json');
  if (existsSync(addedFile)) {
    for (const [content, id] of Object.entries(parse(vocabSchema, addedFile))) {
      tokens.set(content, { content, id, special: tokens.get(content)?.special ?? /^<\|.*\|>$/.test(content) });
    }
  }
  const configFile = join(folder, 'tokenizer_config.json');
  if (existsSync(configFile)) {
    for (const [id, { content, special }] of Object.entries(
      parse(tokenizerConfigSchema, configFile).added_tokens_decoder,
    )) {
      tokens.set(content, { content, id: Number(id), special });
    }
  }
  return [...tokens.values()];
}

function plainAddedToken(token: AddedToken) {
  return { ...token, single_word: false, lstrip: false, rstrip: false, normalized: false };
}

function parse<T extends z.ZodType>(schema: T, file: string): z.infer<T> {
  const parsed = schema.safeParse(readJson(file));
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new CodedError('MODEL_INVALID', `${file}: ${issue?.path.join('.')}: ${issue?.message}`);
}

function readText(file: string): string {
  try {
    return readRegular(file, JSON_MAX).bytes.toString('utf8');
  } catch (cause) {
    throw new CodedError('MODEL_NOT_FOUND', `${file}: ${(cause as Error).message}`, { cause });
  }
}
