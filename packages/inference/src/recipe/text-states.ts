/**
 * Text states of the prompts that were encoded last: pictures of one prompt, and the blank negative one, encode once;
 * those on disk even after a restart, and without the encoder in memory.
 */
import type { FloatCache } from './float-cache.js';

/** Those of the largest encoder take 7 MB for a prompt of 512 tokens. */
const KEPT = 8;

export class TextStates {
  readonly #cache: FloatCache;
  /** Everything that the states depend on beside the prompt. */
  readonly #encoder: string;
  /** The one that was used last is the last. */
  readonly #known = new Map<string, Float32Array>();

  constructor(cache: FloatCache, encoder: string) {
    this.#cache = cache;
    this.#encoder = encoder;
  }

  /** Null where `encode` gives none: it was cancelled. */
  async of(prompt: string, encode: () => Promise<Float32Array | null>): Promise<Float32Array | null> {
    const states = this.#known.get(prompt) ?? (await this.#fromDisk(prompt, encode));
    if (states === null) return null;
    this.#known.delete(prompt);
    this.#known.set(prompt, states);
    const [oldest] = this.#known.keys();
    if (this.#known.size > KEPT && oldest !== undefined) this.#known.delete(oldest);
    return states;
  }

  async #fromDisk(prompt: string, encode: () => Promise<Float32Array | null>): Promise<Float32Array | null> {
    const key = `${this.#encoder}\n${prompt}`;
    const kept = this.#cache.get(key);
    if (kept) return kept;
    const states = await encode();
    if (states) this.#cache.put(key, states);
    return states;
  }
}
