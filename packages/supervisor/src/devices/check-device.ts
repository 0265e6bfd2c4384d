/** Whether a device computes, and computes right: asked of a process of its own, for a driver may take it down. */
import { fileURLToPath } from 'node:url';
import type { Room } from '@qwen-supervisor/model/plan/plan';
import {
  type CheckedAbility,
  type DeviceAbility,
  type DeviceAnswer,
  parseDevice,
} from '@qwen-supervisor/protocol/device';
import { deviceFault } from '@qwen-supervisor/protocol/device-fault';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { execa } from 'execa';
import { QUIET, WITHOUT_KEYS } from '../processes/spawn-child.js';
import type { Candidate, Device } from './devices.js';

/** The first use of a card may compile shaders, and wake the card, on a machine that is busy with something else. */
const LIMIT_MS = 120_000;

/** @throws CodedError DEVICE_UNAVAILABLE, DEVICE_DRIVER_UNUSABLE, DEVICE_DRIVER_OLD, CUDA_RUNTIME_INCOMPLETE */
export async function checkDevice(
  { device, env }: Pick<Device, 'device' | 'env'>,
  signal?: AbortSignal,
): Promise<CheckedAbility> {
  const entry = fileURLToPath(import.meta.resolve('@qwen-supervisor/inference/device-check-main'));
  const result = await execa(process.execPath, [entry, device], {
    env: { ...WITHOUT_KEYS, ...QUIET, ...env },
    stdin: 'ignore',
    reject: false,
    timeout: LIMIT_MS,
    killSignal: 'SIGKILL',
    ...(signal ? { cancelSignal: signal } : {}),
  });
  if (result.isCanceled) throw new CodedError('SUPERVISOR_STOPPING');
  // Drivers write into the output what they like.
  const answer = answerIn(result.stdout);
  if (answer === null) {
    const how = result.timedOut
      ? `no answer within ${LIMIT_MS / 1000} s`
      : (result.signal ?? `code ${result.exitCode}`);
    throw new CodedError('DEVICE_UNAVAILABLE', `${device}: its check ended with ${how}`);
  }
  // Which library is missing stands in what ONNX Runtime writes, not in what it throws.
  if ('error' in answer)
    throw answer.error.code === 'CUDA_RUNTIME_INCOMPLETE'
      ? deviceFault(device, answer.error.message, result.stderr)
      : CodedError.from(answer.error);
  return answer;
}

/** What a device that works computes in, and has for a model. */
interface CheckedDevice {
  compute: DeviceAbility['compute'];
  /** Null for the processor. */
  card: Room['card'];
}

/**
 * `heldBytes`: of a worker that will have ended; without end where that is not known. @throws CodedError as
 * `checkDevice`
 */
export async function cardOf(device: Device, heldBytes: number, signal?: AbortSignal): Promise<CheckedDevice> {
  const { kind } = parseDevice(device.device);
  if (kind === 'cpu') return { compute: 'float32', card: null };
  const { attention, compute } = await checkDevice(device, signal);
  const { memoryBytes, freeBytes } = device;
  const bytes = freeBytes === null ? memoryBytes : Math.min(memoryBytes ?? freeBytes, freeBytes + heldBytes);
  return { compute, card: { kind, bytes, attention, compute } };
}

/**
 * The first of `candidates`, one at least, that works, and its memory; `onFault` hears of those before it. `heldOn`:
 * bytes on a card that will be free. @throws CodedError of the last, where none works
 */
export async function firstWorking(
  candidates: Candidate[],
  onFault: (fault: CodedError) => void,
  heldOn: (candidate: Candidate) => number = () => 0,
): Promise<{ candidate: Candidate; card: Room['card'] }> {
  const [candidate, ...others] = candidates as [Candidate, ...Candidate[]];
  try {
    const { card } = await cardOf(candidate, heldOn(candidate));
    return { candidate, card };
  } catch (error) {
    if (!(error instanceof CodedError) || others.length === 0) throw error;
    onFault(error);
    return firstWorking(others, onFault, heldOn);
  }
}

function answerIn(text: string): DeviceAnswer | null {
  const line = text.split('\n').findLast((one) => one.startsWith('{"'));
  return line === undefined ? null : (JSON.parse(line) as DeviceAnswer);
}
