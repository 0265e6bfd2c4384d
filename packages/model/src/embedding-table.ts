/** The token embedding table, read row by row from the weight file: it never enters memory as a whole. */
import { closeSync } from 'node:fs';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { toFloat32, type WeightDtype } from './dtype.js';
import { openForReading, readAt, type TensorEntry, weightDtype } from './safetensors.js';

export class EmbeddingTable {
  readonly #tensor: TensorEntry;
  readonly #dtype: WeightDtype;
  readonly #fd: number;
  readonly #rowBytes: number;

  /** `tensor` has the shape [vocabulary, hidden]. */
  constructor(tensor: TensorEntry) {
    this.#tensor = tensor;
    this.#dtype = weightDtype(tensor);
    this.#rowBytes = tensor.length / (tensor.shape[0] as number);
    this.#fd = openForReading(tensor.file).fd;
  }

  /** Rows of `ids`, [ids.length, hidden]. @throws CodedError MODEL_INVALID for an id beyond the vocabulary */
  rows(ids: readonly number[]): Float32Array {
    const [vocabulary, hidden] = this.#tensor.shape as [number, number];
    const strange = ids.find((id) => id >= vocabulary);
    if (strange !== undefined) {
      throw new CodedError('MODEL_INVALID', `the tokenizer gives id ${strange}, the text encoder knows ${vocabulary}`);
    }
    const out = new Float32Array(ids.length * hidden);
    ids.forEach((id, n) => {
      const bytes = readAt(this.#fd, this.#tensor.file, this.#tensor.offset + id * this.#rowBytes, this.#rowBytes);
      out.set(toFloat32(this.#dtype, bytes), n * hidden);
    });
    return out;
  }

  close(): void {
    closeSync(this.#fd);
  }
}
