/** Where a drawn picture goes: checked before it is drawn, which may take minutes. */
import { accessSync, constants, copyFileSync, statSync } from 'node:fs';
import { dirname, extname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { execa } from 'execa';

/** By the end of a file's name; a name without one is a PNG, too. */
const FORMATS: Record<string, 'png' | 'jpeg' | 'webp'> = {
  '': 'png',
  '.png': 'png',
  '.jpg': 'jpeg',
  '.jpeg': 'jpeg',
  '.webp': 'webp',
};

/** The file for a picture of this id. `output`: what was asked for, a file or a folder. */
export type Output = (id: string) => string;

/** `isForMany`: then it must be a folder. @throws CodedError USAGE_INVALID, OUTPUT_UNWRITABLE */
export function outputOf(output: string | undefined, isForMany: boolean): Output {
  const path = resolve(output ?? '.');
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    requireWritable(path, path);
    return (id) => join(path, `${id}.png`);
  }
  if (/[/\\]$/.test(output ?? '')) throw new CodedError('OUTPUT_UNWRITABLE', `${path}: there is no such folder`);
  if (isForMany)
    throw new CodedError('USAGE_INVALID', `--output: ${path} is no folder, and there are several pictures`);
  if (!Object.hasOwn(FORMATS, extname(path).toLowerCase()))
    throw new CodedError('USAGE_INVALID', `--output: '${extname(path)}' is no format; .png, .jpg and .webp are`);
  requireWritable(statSync(path, { throwIfNoEntry: false }) ? path : dirname(path), path);
  return () => path;
}

/** Copies a picture, in the format that the name asks for. @throws CodedError OUTPUT_UNWRITABLE */
export async function writeOutput(png: string, path: string): Promise<void> {
  const format = FORMATS[extname(path).toLowerCase()] ?? 'png';
  try {
    if (format === 'png') return copyFileSync(png, path);
    // Decoding pictures is nothing that this process has a library for.
    const entry = fileURLToPath(import.meta.resolve('@qwen-supervisor/api/pictures/convert-main'));
    await execa(process.execPath, [entry, png, path, format]);
  } catch (cause) {
    const { stderr, message } = cause as { stderr?: string; message: string };
    throw new CodedError('OUTPUT_UNWRITABLE', `${path}: ${stderr || message}`, { cause });
  }
}

function requireWritable(existing: string, path: string): void {
  try {
    accessSync(existing, constants.W_OK);
  } catch (cause) {
    throw new CodedError('OUTPUT_UNWRITABLE', `${path}: ${(cause as Error).message}`, { cause });
  }
}
