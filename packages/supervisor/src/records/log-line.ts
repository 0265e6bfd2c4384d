/** One log record as a line for people: time, who, what, and the details that matter. */
import { harmless } from '@qwen-supervisor/protocol/harmless-text';
import pc from 'picocolors';

/** Shown otherwise, or said by the message already. */
const HIDDEN = new Set(['level', 'time', 'msg', 'child', 'state', 'component', 'bytesDone', 'bytesTotal']);
const WHO_WIDTH = 10;

/**
 * Whether stdout is a terminal whose owner has not asked for plain text (NO_COLOR, --no-color), or colours were asked
 * for (FORCE_COLOR, --color). References: no-color.org, force-color.org.
 */
export function hasColours(): boolean {
  const isForced = Boolean(process.env.FORCE_COLOR) || process.argv.includes('--color');
  return pc.isColorSupported && (isForced || (process.stdout.isTTY ?? false));
}

/** For systemd's journal, which has the time, and takes the level from the beginning. Reference: sd-daemon(3). */
export function journalLine(json: string): string {
  const { level } = JSON.parse(json) as { level: number };
  const priority = level >= 50 ? 3 : level >= 40 ? 4 : level >= 30 ? 6 : 7;
  return `<${priority}>${formatLine(json, false).replace(TIME, '')}\n`;
}

/** As every line begins. */
const TIME = /^\d\d:\d\d:\d\d {2}/;

/** `json`: one line of the log. A line that is no record is shown as it is. */
export function formatLine(json: string, colours: boolean): string {
  const paint = pc.createColors(colours);
  let record: Record<string, unknown>;
  try {
    record = JSON.parse(json);
  } catch (error) {
    if (error instanceof SyntaxError) return harmless(json.trimEnd());
    throw error;
  }
  const time = new Date(String(record.time)).toTimeString().slice(0, 8);
  const who = harmless(String(record.child ?? 'supervisor')).padEnd(WHO_WIDTH);
  const details = Object.entries(record)
    .filter(([key, value]) => !HIDDEN.has(key) && value !== null)
    .map(([key, value]) => `${key}=${typeof value === 'object' ? JSON.stringify(value) : value}`)
    .join(' ');
  const level = Number(record.level);
  const colour = level >= 50 ? paint.red : level >= 40 ? paint.yellow : (text: string) => text;
  return `${paint.dim(time)}  ${paint.cyan(who)}  ${colour(harmless(String(record.msg ?? '')))}${details ? `  ${paint.dim(harmless(details))}` : ''}`;
}
