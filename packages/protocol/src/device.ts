/** What computes pictures. */
import type { ErrorObject } from './errors.js';

export const DEVICE_KINDS = ['cpu', 'cuda', 'webgpu'] as const;
export type DeviceKind = (typeof DEVICE_KINDS)[number];

/** What an operator may ask for: `auto`, or devices as `cpu`, `cuda`, `webgpu`, `cuda:1`; commas between several. */
export const DEVICES_PATTERN =
  /^(?:auto|(?:cpu|(?:cuda|webgpu)(?::\d{1,2})?)(?: *, *(?:cpu|(?:cuda|webgpu)(?::\d{1,2})?))*)$/;

/** What was asked for, one after the other: a worker is started for each. */
export function listOfDevices(text: string): string[] {
  return text.split(',').map((one) => one.trim());
}

/** The first card that is in the list twice; null if none is. */
export function repeatedCard(text: string): string | null {
  const cards = listOfDevices(text).filter((device) => device !== 'cpu');
  return cards.find((card, index) => cards.indexOf(card) < index) ?? null;
}

export function firstDevice(text: string): string {
  return listOfDevices(text)[0] as string;
}

/** A device by its kind and, of several of a kind, its number: `cuda:1`. */
export function parseDevice(device: string): { kind: DeviceKind; index: number } {
  const [kind, index = '0'] = device.split(':');
  return { kind: kind as DeviceKind, index: Number(index) };
}

/** The device that a worker was given, and why. */
export interface ChosenDevice {
  /** `cpu`, `cuda:0`, `webgpu:0`. */
  device: string;
  /** As its maker calls it. */
  name: string;
  /** Of its own; null where it is the machine's. */
  memoryBytes: number | null;
  /** In one sentence. */
  reason: string;
}

/** How a device computes. */
export interface DeviceAbility {
  /** How attention comes out right there: as one operator, or taken apart. */
  attention: 'fused' | 'decomposed';
  /** What it computes the transformer in. */
  compute: 'float32' | 'float16' | 'bfloat16';
}

/** With what it might compute in and does not. */
export interface CheckedAbility extends DeviceAbility {
  /** A type each, and why not. */
  refused: string[];
}

/** As the process that checks tells it. */
export type DeviceAnswer = CheckedAbility | { error: ErrorObject };
