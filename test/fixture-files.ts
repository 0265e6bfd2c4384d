/** Files that tests are made of: the committed checkpoints, temporary folders, and a safetensors writer. */
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';

export const REPOSITORY = fileURLToPath(new URL('..', import.meta.url));
export const POCKET = join(REPOSITORY, 'packages/pocket-model/checkpoint');
export const POCKET_GOLDEN = join(REPOSITORY, 'test/fixtures/pocket-golden');
/** A second checkpoint: random weights, other sizes, fp16 in shards. */
export const OTHER = join(REPOSITORY, 'test/fixtures/other/checkpoint');
export const OTHER_GOLDEN = join(REPOSITORY, 'test/fixtures/other/golden');

/** A folder that is gone after the test. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'qwen-supervisor-test-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A copy of a checkpoint that a test may damage. */
export function copyCheckpoint(from: string): string {
  const folder = join(temporaryFolder(), 'checkpoint');
  cpSync(from, folder, { recursive: true });
  return folder;
}

/** A safetensors file with exactly this header, true or not, and this data. */
export function safetensorsBytes(header: unknown, data: Uint8Array): Buffer {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, data]);
}

/** Writes float32 tensors as one file. */
export function writeFloat32Safetensors(
  file: string,
  tensors: Map<string, { shape: number[]; data: Float32Array }>,
): void {
  let offset = 0;
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  for (const [name, { shape, data }] of tensors) {
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
  }
  const bytes = [...tensors.values()].map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  writeFileSync(file, safetensorsBytes(header, Buffer.concat(bytes)));
}
