/** Records of the log, as they are kept and shown. Pure. */

export interface LogRecord {
  level: number;
  /** ISO 8601. */
  time: string;
  msg?: string;
  child?: string;
  /** Counts those that came to this page. */
  number: number;
  [detail: string]: unknown;
}

/** Lines that are kept. */
const KEPT = 2000;

let count = 0;

export function addLines(before: readonly LogRecord[], fresh: readonly LogRecord[]): readonly LogRecord[] {
  for (const record of fresh) record.number = ++count;
  return [...before, ...fresh].slice(-KEPT);
}

const SHOWN_OTHERWISE = new Set(['level', 'time', 'msg', 'child', 'number']);

/** Message and details; what moves the cursor of a terminal is left out. */
export function textOf(record: LogRecord): string {
  const details = Object.entries(record)
    .filter(([key, value]) => !SHOWN_OTHERWISE.has(key) && value !== null)
    .map(([key, value]) => `${key}=${typeof value === 'object' ? JSON.stringify(value) : value}`);
  return withoutControls([record.msg ?? '', ...details].join('  '));
}

function withoutControls(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
  return text.replace(/\u001b\[[0-9;]*[A-Za-z]/g, '').replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, '·');
}
