/**
 * Files that people own and this program does not read, or that only stand for a file: known by what they are, so that
 * nobody downloads 40 GB again for nothing.
 */
import { CodedError } from '@qwen-supervisor/protocol/errors';

/** Bytes of a file's beginning that tell what it is. */
export const HEAD_BYTES = 512;

/** @param head the first bytes of `file`. @throws CodedError MODEL_UNSUPPORTED, MODEL_NOT_DOWNLOADED */
export function refuseForeign(file: string, head: Buffer): void {
  const text = head.toString('latin1', 0, HEAD_BYTES);
  if (text.startsWith('version https://git-lfs.github.com/spec/'))
    throw new CodedError('MODEL_NOT_DOWNLOADED', `${file}: is a Git LFS pointer, which stands for the file`);
  if (/^\s*<(!doctype|html|\?xml)/i.test(text))
    throw new CodedError('MODEL_NOT_DOWNLOADED', `${file}: is a web page, which came in place of the file`);
  if (text.startsWith('GGUF'))
    throw new CodedError('MODEL_UNSUPPORTED', `${file}: is a GGUF file, for llama.cpp and stable-diffusion.cpp`);
  // The first bytes of safetensors are a length, which may look like anything; then comes JSON.
  if (text[8] !== '{' && (text.startsWith('PK\x03\x04') || text.startsWith('\x80\x02')))
    throw new CodedError(
      'MODEL_UNSUPPORTED',
      `${file}: is a file of PyTorch (pickle), which is not read; safetensors are`,
    );
}

/** What a type is that weights cannot have here. */
export function kindOfType(dtype: string): string {
  if (/^F8_/.test(dtype)) return `of type ${dtype} (fp8)`;
  if (/^(F4|F6)/.test(dtype)) return `of type ${dtype} (${dtype.startsWith('F4') ? 4 : 6} bits)`;
  if (/^[UI]\d/.test(dtype)) return `of type ${dtype}, as quantised weights are`;
  return `of type ${dtype}`;
}

/** Tensors that only files of quantised weights have. */
const SIDE_TENSOR =
  /(^|[._])(absmax|nested_absmax|quant_map|quant_state|scale_weight|weight_scale|weight_scale_inv|scale_input|input_scale|scaled_fp8|qweight|qzeros|g_idx|SCB|wscales|smooth_factor)([._]|$)/;

/** The tensor that tells that weights are quantised; null where none does. */
export function quantisedBy(names: Iterable<string>): string | null {
  for (const name of names) if (SIDE_TENSOR.test(name)) return name;
  return null;
}

/** What a component's config says about quantisation. @throws CodedError MODEL_UNSUPPORTED */
export function refuseQuantised(file: string, config: unknown): void {
  const { quantization_config: quantisation } = (config ?? {}) as { quantization_config?: { quant_method?: unknown } };
  if (!quantisation) return;
  const method = typeof quantisation.quant_method === 'string' ? quantisation.quant_method.slice(0, 50) : 'some method';
  throw new CodedError('MODEL_UNSUPPORTED', `${file}: its weights are quantised by ${method}; use the bf16 folder`);
}
