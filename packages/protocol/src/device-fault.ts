/** What keeps a device from being used, from what ONNX Runtime says when a session is to be made for it. */
import { CodedError, type ErrorCode } from './errors.js';

/** What is wrong with a device, and not with what is computed there: another one may do. */
export const OF_DEVICE: readonly ErrorCode[] = [
  'DEVICE_UNAVAILABLE',
  'DEVICE_DRIVER_UNUSABLE',
  'DEVICE_DRIVER_OLD',
  'CUDA_RUNTIME_INCOMPLETE',
];

/** cudaErrorInsufficientDriver, cudaErrorSystemDriverMismatch. Reference: CUDA runtime API, `cudaError`. */
const DRIVER_FAILURES = [35, 803];
/** cudaErrorNoDevice, cudaErrorInvalidDevice. */
const NO_DEVICE_FAILURES = [100, 101];
/** What the driver brings, not we. */
const OF_DRIVER = /^lib(cuda|vulkan)\.so/;

/** `log`: what was written meanwhile, where the name of a library that is missing stands. */
export function deviceFault(device: string, message: string, log = ''): CodedError {
  const said = `${message}\n${log}`;
  const [, library] = /(lib[\w.+-]+\.so[.\d]*): cannot open shared object/.exec(said) ?? [];
  if (library && OF_DRIVER.test(library))
    return new CodedError('DEVICE_DRIVER_UNUSABLE', `${device}: ${library}, of the card's driver, is not there`);
  if (library) return new CodedError('CUDA_RUNTIME_INCOMPLETE', `${device}: ${library} is not there`);
  if (/Failed to load (?:shared )?library/.test(said))
    return new CodedError('CUDA_RUNTIME_INCOMPLETE', `${device}: CUDA's libraries are not there`);
  const failure = Number(/CUDA failure (\d+)/.exec(said)?.[1]);
  if (DRIVER_FAILURES.includes(failure))
    return new CodedError('DEVICE_DRIVER_OLD', `${device}: the driver is too old (CUDA failure ${failure})`);
  if (NO_DEVICE_FAILURES.includes(failure))
    return new CodedError('DEVICE_UNAVAILABLE', `${device}: there is no such card (CUDA failure ${failure})`);
  // Before it stand a file and a condition of the runtime's own source.
  const [last = ''] = /[^.]*$/.exec(message.trim().replace(/\.$/, '')) ?? [];
  return new CodedError('DEVICE_UNAVAILABLE', `${device}: ${last.trim()}`);
}
