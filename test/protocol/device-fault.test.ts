import { deviceFault } from '@qwen-supervisor/protocol/device-fault';
import { ERRORS } from '@qwen-supervisor/protocol/errors';
import { expect, test } from 'vitest';

const APPEND = 'OrtSessionOptionsAppendExecutionProvider_Cuda: Failed to load shared library';
const log = (what: string) =>
  `provider_bridge_ort.cc:2146 Create] … Failed to load library /data/lib/libonnxruntime_providers_cuda.so with error: ${what}`;

/** As ONNX Runtime 1.30 says it: the first four were seen, with the real libraries and without a card. */
test.each<[string, string, string, string, RegExp]>([
  ['no libraries', APPEND, '', 'CUDA_RUNTIME_INCOMPLETE', /CUDA's libraries are not there/],
  [
    'one library missing',
    APPEND,
    log('libcublas.so.13: cannot open shared object file: No such file or directory'),
    'CUDA_RUNTIME_INCOMPLETE',
    /libcublas\.so\.13 is not there/,
  ],
  [
    'no driver',
    APPEND,
    log('libcuda.so.1: cannot open shared object file: No such file or directory'),
    'DEVICE_DRIVER_UNUSABLE',
    /libcuda\.so\.1, of the card's driver/,
  ],
  [
    'an old driver',
    '/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:129 … CUDA failure 35: CUDA driver version is insufficient',
    '',
    'DEVICE_DRIVER_OLD',
    /too old \(CUDA failure 35\)/,
  ],
  ['no card', 'CUDA failure 100: no CUDA-capable device is detected', '', 'DEVICE_UNAVAILABLE', /no such card/],
  [
    'no adapter',
    '/src/webgpu_context.cc:77 … status == kSuccess was false. Failed to get a WebGPU adapter: No supported adapters',
    '',
    'DEVICE_UNAVAILABLE',
    /^x: Failed to get a WebGPU adapter: No supported adapters$/,
  ],
])('%s is told as such', (_, message, written, code, text) => {
  const fault = deviceFault('x', message, written);
  expect(fault).toMatchObject({ code, message: expect.stringMatching(text) });
});

test('libraries, a driver, a newer driver and a card are four different things to do', () => {
  const codes = [
    'CUDA_RUNTIME_INCOMPLETE',
    'DEVICE_DRIVER_UNUSABLE',
    'DEVICE_DRIVER_OLD',
    'DEVICE_UNAVAILABLE',
  ] as const;
  const hints = codes.map((code) => ERRORS[code].hint);
  expect(new Set(hints).size).toBe(4);
});
