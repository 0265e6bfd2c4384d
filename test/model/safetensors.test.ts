import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readFloat32, readSafetensorsHeader, type TensorEntry } from '@qwen-supervisor/model/safetensors';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { safetensorsBytes, temporaryFolder } from '../fixture-files.js';

function write(bytes: Uint8Array): string {
  const file = join(temporaryFolder(), 'x.safetensors');
  writeFileSync(file, bytes);
  return file;
}

const entry = (dtype: string, shape: unknown, offsets: unknown) => ({ dtype, shape, data_offsets: offsets });

describe('the safetensors reader', () => {
  test.each([
    ['F32', Buffer.from(Float32Array.of(1, -2.5).buffer), [1, -2.5]],
    // Bit patterns: 1, -2, the smallest subnormal, the largest value, infinity.
    ['F16', Buffer.from(Uint16Array.of(0x3c00, 0xc000, 1, 0x7bff, 0x7c00).buffer), [1, -2, 2 ** -24, 65504, Infinity]],
    ['BF16', Buffer.from(Uint16Array.of(0x3f80, 0xc020, 0x0001).buffer), [1, -2.5, 2 ** -133]],
  ])('reads %s exactly', (dtype, data, expected) => {
    const file = write(safetensorsBytes({ a: entry(dtype, [expected.length], [0, data.length]) }, data));
    expect([...readFloat32(readSafetensorsHeader(file).get('a') as TensorEntry)]).toEqual(expected);
  });

  test('reads a range of elements', () => {
    const data = Buffer.from(Float32Array.of(1, 2, 3, 4).buffer);
    const file = write(safetensorsBytes({ a: entry('F32', [4], [0, 16]) }, data));
    expect([...readFloat32(readSafetensorsHeader(file).get('a') as TensorEntry, 1, 3)]).toEqual([2, 3]);
  });

  const eight = Buffer.alloc(8);
  test.each<[string, Buffer, string]>([
    ['an empty file', Buffer.alloc(0), 'MODEL_TRUNCATED'],
    ['a file that ends inside its header', safetensorsBytes('{"a"', eight).subarray(0, 10), 'MODEL_TRUNCATED'],
    ['a header of 2^63 bytes', Buffer.from('ffffffffffffff7f00', 'hex'), 'MODEL_INVALID'],
    ['a header that is not JSON', safetensorsBytes('{"a":', eight), 'MODEL_INVALID'],
    [
      'a header that is not UTF-8',
      Buffer.concat([safetensorsBytes('', Buffer.alloc(0)).fill(2, 0, 1), Buffer.from([0xff, 0xff])]),
      'MODEL_INVALID',
    ],
    ['a header that is a list', safetensorsBytes('[]', eight), 'MODEL_INVALID'],
    ['an entry that is null', safetensorsBytes({ a: null }, eight), 'MODEL_INVALID'],
    ['an unknown type', safetensorsBytes({ a: entry('F33', [2], [0, 8]) }, eight), 'MODEL_UNSUPPORTED'],
    [
      'a type named like a property of all objects',
      safetensorsBytes({ a: entry('toString', [2], [0, 8]) }, eight),
      'MODEL_INVALID',
    ],
    [
      'a type that cannot be printed',
      safetensorsBytes({ a: entry({ toString: 1 } as never, [2], [0, 8]) }, eight),
      'MODEL_INVALID',
    ],
    ['a negative side', safetensorsBytes({ a: entry('F32', [-2], [0, 8]) }, eight), 'MODEL_INVALID'],
    [
      'sides whose product overflows',
      safetensorsBytes({ a: entry('F32', [2 ** 40, 2 ** 40], [0, 8]) }, eight),
      'MODEL_INVALID',
    ],
    ['offsets that run backwards', safetensorsBytes({ a: entry('F32', [2], [8, 0]) }, eight), 'MODEL_INVALID'],
    ['offsets that do not fit the shape', safetensorsBytes({ a: entry('F32', [1], [0, 8]) }, eight), 'MODEL_INVALID'],
    [
      'overlapping tensors',
      safetensorsBytes({ a: entry('F32', [2], [0, 8]), b: entry('F32', [1], [4, 8]) }, eight),
      'MODEL_INVALID',
    ],
    ['a hole between tensors', safetensorsBytes({ a: entry('F32', [1], [4, 8]) }, eight), 'MODEL_INVALID'],
    ['data that is too short', safetensorsBytes({ a: entry('F32', [4], [0, 16]) }, eight), 'MODEL_TRUNCATED'],
    ['data that is too long', safetensorsBytes({ a: entry('F32', [1], [0, 4]) }, eight), 'MODEL_INVALID'],
  ])('refuses %s', (_what, bytes, code) => {
    expect(() => readSafetensorsHeader(write(bytes))).toThrow(expect.objectContaining({ code }));
  });

  test('refuses weights of a type that is no number of ours', () => {
    const file = write(safetensorsBytes({ a: entry('I64', [1], [0, 8]) }, eight));
    const tensor = readSafetensorsHeader(file).get('a') as TensorEntry;
    expect(() => readFloat32(tensor)).toThrow(expect.objectContaining({ code: 'MODEL_UNSUPPORTED' }));
  });

  test('answers random bytes with a coded error or a header, never with anything else', () => {
    const file = join(temporaryFolder(), 'x.safetensors');
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), fc.json(), (tail, json) => {
        writeFileSync(file, safetensorsBytes(json, tail));
        try {
          readSafetensorsHeader(file);
        } catch (error) {
          expect(error).toMatchObject({ code: expect.stringMatching(/^MODEL_/) });
        }
      }),
    );
  });
});
