/**
 * A thread that prepares one weight after the other: reads it in pieces of whole rows, adds the LoRA, looks for values
 * that are no numbers, quantises, writes to the weight's place. A piece at a time is in memory.
 */
import { createHash } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { writeAll } from '@qwen-supervisor/files/write-all';
import { CodedError, type ErrorObject, toCodedError } from '@qwen-supervisor/protocol/errors';
import { bytesOf, DTYPE_BYTES, toFloat32 } from '../dtype.js';
import { openForReading, readAt, type TensorEntry, weightDtype } from '../safetensors.js';
import { addLora, type Lora, readMatrices } from './lora.js';
import type { Precision } from './precision.js';
import type { Place, Sums } from './prepared-file.js';
import { type Quality, quantiseRows, rowSizes } from './quantise.js';

export interface Task {
  tensor: TensorEntry;
  lora: Lora | null;
  quality: Quality;
  /** Null: the weight is only looked at, for values that are no numbers. */
  target: { file: string; place: Place; precision: Precision } | null;
}

export type ThreadMessage =
  | { type: 'read'; bytes: number }
  | { type: 'done'; sums: Sums }
  | { type: 'failed'; error: ErrorObject; system: string | null };

/** Elements of a piece: some 30 MB of a thread's memory. */
const PIECE = 2 << 20;

const port = parentPort as NonNullable<typeof parentPort>;
const tell = (message: ThreadMessage) => port.postMessage(message);

port.on('message', (task: Task) => {
  try {
    tell({ type: 'done', sums: prepare(task) });
  } catch (error) {
    tell({
      type: 'failed',
      error: toCodedError(error).toObject(),
      system: (error as NodeJS.ErrnoException).code ?? null,
    });
  }
});

function prepare({ tensor, lora, quality, target }: Task): Sums {
  const dtype = weightDtype(tensor);
  const width = DTYPE_BYTES[dtype] as number;
  const columns = tensor.shape.at(-1) ?? 1;
  const rows = tensor.length / width / columns;
  const matrices = lora && readMatrices(lora);
  const [values, scales] = [createHash('sha256'), createHash('sha256')];
  const rowsAtOnce = Math.max(1, Math.floor(PIECE / columns));
  const source = openForReading(tensor.file).fd;
  const out = target && openSync(target.file, 'r+');
  try {
    for (let row = 0; row < rows; row += rowsAtOnce) {
      const count = Math.min(rowsAtOnce, rows - row);
      const bytes = count * columns * width;
      const piece = toFloat32(dtype, readAt(source, tensor.file, tensor.offset + row * columns * width, bytes));
      if (matrices) addLora(piece, row, columns, matrices);
      requireNumbers(piece, tensor);
      if (target && out !== null) {
        const { place, precision } = target;
        if (place.scales === null || precision === 'float32') {
          const raw = bytesOf(piece);
          values.update(raw);
          writeAll(out, raw, place.offset + row * columns * 4);
        } else {
          const bits = precision === 'int4' ? 4 : 8;
          const sizes = rowSizes(columns, bits);
          const codes = new Uint8Array(count * sizes.codes);
          const factors = new Float32Array(count * sizes.scales);
          quantiseRows(piece, count, columns, bits, quality, codes, factors);
          values.update(codes);
          scales.update(bytesOf(factors));
          writeAll(out, codes, place.offset + row * sizes.codes);
          writeAll(out, bytesOf(factors), place.scales.offset + row * sizes.scales * 4);
        }
      }
      tell({ type: 'read', bytes });
    }
  } finally {
    closeSync(source);
    if (out !== null) closeSync(out);
  }
  return { values: values.digest('hex'), scales: target?.place.scales ? scales.digest('hex') : null };
}

/** An infinite value minus itself is no number, and neither is one that was none. */
function requireNumbers(values: Float32Array, { file, name }: TensorEntry): void {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += (values[i] as number) - (values[i] as number);
  if (sum !== 0)
    throw new CodedError('MODEL_INVALID', `${file}: tensor ${name} has a value that is no number (NaN or infinite)`);
}
