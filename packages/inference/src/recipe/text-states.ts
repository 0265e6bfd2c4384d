/**
 * Text states of the prompts that were encoded last: pictures of one prompt, and the blank negative one, encode once.
 */

/** Those of the largest encoder take 7 MB for a prompt of 512 tokens. */
const KEPT = 8;

export class TextStates {
  /** The one that was used last is the last. */
  readonly #known = new Map<string, Float32Array>();

  async of(prompt: string, encode: () => Promise<Float32Array>): Promise<Float32Array> {
    const states = this.#known.get(prompt) ?? (await encode());
    this.#known.delete(prompt);
    this.#known.set(prompt, states);
    const [oldest] = this.#known.keys();
    if (this.#known.size > KEPT && oldest !== undefined) this.#known.delete(oldest);
    return states;
  }
}
