/** Whether prepared weights are still what was written. */
import { createHash } from 'node:crypto';
import { closeSync } from 'node:fs';
import { readPreparedHeader } from '../prepare/prepared-file.js';
import { openForReading, readAt, readSafetensorsHeader } from '../safetensors.js';

const PIECE_BYTES = 8 << 20;

/**
 * Names of the tensors of a prepared file whose bytes have another checksum. `onBytes` hears how many were read, each
 * piece alone. @throws CodedError MODEL_*
 */
export function damagedTensors(file: string, onBytes: (count: number) => void): string[] {
  const { sha256 } = readPreparedHeader(file);
  const entries = readSafetensorsHeader(file);
  const { fd } = openForReading(file);
  try {
    return [...entries.values()].flatMap(({ name, offset, length }) => {
      const hash = createHash('sha256');
      for (let done = 0; done < length; done += PIECE_BYTES) {
        const piece = readAt(fd, file, offset + done, Math.min(PIECE_BYTES, length - done));
        hash.update(piece);
        onBytes(piece.length);
      }
      return hash.digest('hex') === sha256[name] ? [] : [name];
    });
  } finally {
    closeSync(fd);
  }
}
