/** What ONNX Runtime says of a device, as it says it. */
import { fromRuntime } from '@qwen-supervisor/inference/recipe/runtime-error';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { expect, test } from 'vitest';

test.each([
  [
    'CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=/onnxruntime/core/providers/cuda/cuda_allocator.cc ; expr=cudaMalloc((void**)&p, size);',
    'DEVICE_MEMORY_EXHAUSTED',
  ],
  ['CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cublasCreate(&handle);', 'DEVICE_MEMORY_EXHAUSTED'],
  [
    'WebGPU validation failed. Failed to create buffer: vkAllocateMemory failed with VK_ERROR_OUT_OF_DEVICE_MEMORY',
    'DEVICE_MEMORY_EXHAUSTED',
  ],
  ['WebGPU validation failed. [Invalid Buffer (unlabeled)] is invalid.', 'DEVICE_MEMORY_EXHAUSTED'],
  [
    'Non-zero status code returned while running MatMulNBits node. Status Message: CUDA failure 700: an illegal memory access was encountered ; GPU=0',
    'DEVICE_LOST',
  ],
  ['CUDA failure 719: unspecified launch failure ; GPU=0 ; expr=cudaStreamSynchronize(stream);', 'DEVICE_LOST'],
  ['CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0 ; expr=cublasGemmEx(', 'DEVICE_LOST'],
  ['CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED ; GPU=0', 'DEVICE_LOST'],
  ['CUDNN failure 8: CUDNN_STATUS_EXECUTION_FAILED ; GPU=0', 'DEVICE_LOST'],
  ['CUDA failure 214: uncorrectable ECC error encountered ; GPU=0', 'DEVICE_LOST'],
  ['CUDA failure 1: invalid argument ; GPU=0 ; expr=cudaMemcpyAsync(', 'INFERENCE_FAILED'],
  ['CUDA failure 701: too many resources requested for launch ; GPU=0', 'INFERENCE_FAILED'],
  ['CUBLAS failure 7: CUBLAS_STATUS_INVALID_VALUE ; GPU=0', 'INFERENCE_FAILED'],
  ['CUDNN failure 3000: CUDNN_STATUS_NOT_SUPPORTED ; GPU=0', 'INFERENCE_FAILED'],
  ['The device was lost: VK_ERROR_DEVICE_LOST', 'DEVICE_LOST'],
  ['Non-zero status code returned while running Conv node. Status Message: invalid dimensions', 'INFERENCE_FAILED'],
])('%s', (message, code) => {
  expect(fromRuntime(new Error(message), 'INFERENCE_FAILED', 'drawing')).toMatchObject({
    code,
    message: `drawing: ${message}`,
  });
});

test('what has a code already keeps it', () => {
  const coded = new CodedError('VALUES_NOT_FINITE', 'nothing but NaN');
  expect(fromRuntime(coded, 'INFERENCE_FAILED', 'drawing')).toBe(coded);
});
