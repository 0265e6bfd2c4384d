/** What ONNX Runtime throws, in our words. */
import { CodedError, type ErrorCode } from '@qwen-supervisor/protocol/errors';

/**
 * How its allocators, CUDA, cuBLAS, Vulkan and the C++ library say that there is no memory left. Through WebGPU a
 * buffer that could not be had is invalid, and that is what fails.
 */
const OUT_OF_MEMORY =
  /failed to allocate memory|out of memory|OUT_OF_(?:DEVICE_|HOST_)?MEMORY|\[Invalid Buffer|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|bad_alloc|bad allocation|available memory of/i;

/**
 * How Dawn and Vulkan say that the driver has reset the card, or that it is gone; and CUDA and its libraries, that this
 * process can compute nothing any more. What else they fail with is of what was asked. Reference: CUDA runtime API,
 * `cudaError`, all of which it is said that "the process must be terminated and relaunched", an uncorrectable error of
 * the memory, a card that is gone and what is not known; cuBLAS and cuDNN, an execution that failed.
 */
const DEVICE_LOST =
  /device (?:is |was )?lost|DEVICE_LOST|CUDA failure (?:4|46|214|70[029]|71[04-9]|999)\b|CUBLAS failure 1[34]\b|CUDNN failure [45]\d{3}\b|CUDNN_STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR)/i;

/** `fallback`: the code where it is not for want of memory. `what` says what was tried. */
export function fromRuntime(error: unknown, fallback: ErrorCode, what: string): CodedError {
  if (error instanceof CodedError) return error;
  const { message } = error as Error;
  const code = OUT_OF_MEMORY.test(message)
    ? 'DEVICE_MEMORY_EXHAUSTED'
    : DEVICE_LOST.test(message)
      ? 'DEVICE_LOST'
      : fallback;
  return new CodedError(code, `${what}: ${message}`, { cause: error });
}
