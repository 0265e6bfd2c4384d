/**
 * The one way by which commands write to a terminal. Texts come from clients, files and other processes: characters
 * that move the cursor, change the window or turn the direction of a text are shown, and not obeyed.
 */
import { harmless } from '@qwen-supervisor/protocol/harmless-text';

export function print(text: string): void {
  process.stdout.write(`${harmless(text)}\n`);
}

/** A text with colours, whose parts were made harmless before they were painted. */
export function printPainted(text: string): void {
  process.stdout.write(`${text}\n`);
}

export function printError(text: string): void {
  process.stderr.write(`${harmless(text)}\n`);
}
