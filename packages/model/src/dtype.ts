/** Element types of weight files, and their conversion to float32. */

/** Bytes per element of every type that the safetensors format names. */
export const DTYPE_BYTES: Readonly<Record<string, number>> = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
};

/** Types that weights may have. */
export type WeightDtype = 'F32' | 'F16' | 'BF16';

export function isWeightDtype(dtype: string): dtype is WeightDtype {
  return dtype === 'F32' || dtype === 'F16' || dtype === 'BF16';
}

/**
 * Little-endian elements of `dtype` in `bytes` as float32, exactly (every fp16 and bf16 value is a float32 value).
 * `bytes` may begin at any address; its length must be a multiple of the element size.
 */
export function toFloat32(dtype: WeightDtype, bytes: Uint8Array): Float32Array {
  if (dtype === 'F32') {
    const out = new Float32Array(bytes.byteLength / 4);
    new Uint8Array(out.buffer).set(bytes);
    return out;
  }
  const halves = new Uint16Array(bytes.byteLength / 2);
  new Uint8Array(halves.buffer).set(bytes);
  const bits = new Uint32Array(halves.length);
  if (dtype === 'BF16') {
    for (let i = 0; i < halves.length; i++) bits[i] = (halves[i] as number) << 16;
  } else {
    for (let i = 0; i < halves.length; i++) bits[i] = halfToFloatBits(halves[i] as number);
  }
  return new Float32Array(bits.buffer);
}

/** IEEE 754 binary16 → binary32, bit patterns. */
function halfToFloatBits(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >> 10) & 0x1f;
  let mantissa = half & 0x3ff;
  if (exponent === 31) return sign | 0x7f800000 | (mantissa << 13);
  if (exponent > 0) return sign | ((exponent + 112) << 23) | (mantissa << 13);
  if (mantissa === 0) return sign;
  // Subnormal: shift until the leading one is implicit.
  let shift = 0;
  while ((mantissa & 0x400) === 0) {
    mantissa <<= 1;
    shift++;
  }
  return sign | ((113 - shift) << 23) | ((mantissa & 0x3ff) << 13);
}

/** The same memory as bytes. */
export function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
