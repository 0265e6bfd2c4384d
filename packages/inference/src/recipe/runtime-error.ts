/** What ONNX Runtime throws, in our words. */
import { CodedError, type ErrorCode } from '@qwen-supervisor/protocol/errors';

/** How its allocators, CUDA, cuBLAS and the C++ library say that there is no memory left. */
const OUT_OF_MEMORY =
  /failed to allocate memory|out of memory|CUDA_ERROR_OUT_OF_MEMORY|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|bad_alloc|bad allocation|available memory of/i;

/** How Dawn and Vulkan say that the driver has reset the card, or that it is gone. */
const DEVICE_LOST = /device (?:is |was )?lost|DEVICE_LOST/i;

/** cudaErrorInsufficientDriver, cudaErrorSystemDriverMismatch. Reference: CUDA runtime API, `cudaError`. */
const DRIVER_FAILURES = [35, 803];
/** cudaErrorNoDevice, cudaErrorInvalidDevice. */
const NO_DEVICE_FAILURES = [100, 101];

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

/** What keeps a device from being used, from what ONNX Runtime says when a session is to be made for it. */
export function deviceFault(device: string, cause: Error): CodedError {
  const { message } = cause;
  const [, library] = /(lib[\w.+-]+\.so[.\d]*): cannot open shared object/.exec(message) ?? [];
  if (library?.startsWith('libcuda.so') || library?.startsWith('libvulkan.so'))
    return new CodedError('DEVICE_DRIVER_UNUSABLE', `${device}: ${library} is not there`, { cause });
  if (library || /cannot open shared object|Failed to load (?:shared )?library/.test(message))
    return new CodedError('CUDA_RUNTIME_INCOMPLETE', `${device}: ${library ?? lastSentence(message)} is missing`, {
      cause,
    });
  const [, failure] = /CUDA failure (\d+)/.exec(message) ?? [];
  if (failure !== undefined && DRIVER_FAILURES.includes(Number(failure)))
    return new CodedError('DEVICE_DRIVER_UNUSABLE', `${device}: the driver is too old (CUDA failure ${failure})`, {
      cause,
    });
  if (failure !== undefined && NO_DEVICE_FAILURES.includes(Number(failure)))
    return new CodedError('DEVICE_UNAVAILABLE', `${device}: there is no such device (CUDA failure ${failure})`, {
      cause,
    });
  return new CodedError('DEVICE_UNAVAILABLE', `${device}: ${lastSentence(message)}`, { cause });
}

/** Before it stand a file and a condition of the runtime's own source. */
function lastSentence(message: string): string {
  return (/[^.]*$/.exec(message.trim().replace(/\.$/, '')) ?? [''])[0].trim();
}
