/** What one look of `doctor` comes to. */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { harmless } from '@qwen-supervisor/protocol/harmless-text';
import pc from 'picocolors';

export interface Finding {
  about: string;
  /** `warn`: it works, and may not for long or not as well as it could. */
  result: 'pass' | 'warn' | 'fail';
  says: string;
  /** What to do; null where nothing is to be done. */
  step: string | null;
}

export const pass = (about: string, says: string): Finding => ({ about, result: 'pass', says, step: null });
export const warn = (about: string, says: string, step: string): Finding => ({ about, result: 'warn', says, step });
export const fail = (about: string, says: string, step: string): Finding => ({ about, result: 'fail', says, step });

/** A look whose errors are findings, too. */
export async function looked(about: string, look: () => Finding | Promise<Finding>): Promise<Finding> {
  try {
    return await look();
  } catch (error) {
    if (!(error instanceof CodedError)) throw error;
    return fail(about, `${error.code}: ${error.message}`, error.hint);
  }
}

export function gigabytes(bytes: number): string {
  return bytes < 9.95e8 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

/** Columns of what a finding is about. */
const ABOUT_WIDTH = 20;

export function findingLine({ about, result, says, step }: Finding, colours: boolean): string {
  const paint = pc.createColors(colours);
  const colour = { pass: paint.green, warn: paint.yellow, fail: paint.red }[result];
  const line = `${colour(result)}  ${about.padEnd(ABOUT_WIDTH)} ${harmless(says)}`;
  return step === null ? line : `${line}\n      ${''.padEnd(ABOUT_WIDTH)} to do: ${harmless(step)}`;
}
