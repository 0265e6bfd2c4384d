/**
 * The log: JSON lines in the data folder, and on stdout readable lines in a terminal and in systemd's journal, or JSON
 * lines anywhere else.
 */
import { fstatSync } from 'node:fs';
import { Writable } from 'node:stream';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import pino, { type Logger } from 'pino';
import { formatLine, hasColours, journalLine } from './log-line.js';
import { RotatingFile } from './rotating-file.js';

/** Size at which the file is set aside, and how many older ones are kept. */
const FILE_MAX_BYTES = 16 << 20;
const OLDER_FILES = 3;
/** Characters that wait for a terminal or a pipe that does not read; what is more is in the file alone. */
const UNREAD_MAX = 1 << 20;
/** How long the end of the supervisor waits for its reader. */
const FLUSH_MS = 500;

export interface Log {
  logger: Logger;
  /** Resolves when stdout has taken what was written, or does not read. */
  flush(): Promise<void>;
}

/** @throws CodedError DATA_DIR_UNUSABLE */
export function openLog(file: string, level: string): Log {
  try {
    const toFile = new RotatingFile(file, FILE_MAX_BYTES, OLDER_FILES, (lines, cause) => {
      const msg = `${lines} lines of this log are lost: ${cause.message}`;
      return `${JSON.stringify({ level: 50, time: new Date().toISOString(), msg })}\n`;
    });
    // Never waited for: process.stdout is written synchronously, and a Ctrl+S would stop the whole service.
    const stdout = pino.destination({ dest: 1, sync: false, maxLength: UNREAD_MAX });
    // A closed terminal costs its own lines, not the supervisor.
    stdout.on('error', (error: Error) =>
      toFile.write(`${JSON.stringify({ level: 20, msg: `stdout: ${error.message}` })}\n`),
    );
    const toStdout = new Writable({
      write(chunk: Buffer, _encoding, done) {
        const text = chunk.toString('utf8');
        stdout.write(shown(text));
        done();
      },
    });
    const isJournal = leadsToJournal(process.env);
    const shown = (text: string) => {
      if (isJournal) return journalLine(text);
      return process.stdout.isTTY ? `${formatLine(text, hasColours())}\n` : text;
    };
    const streams = [toFile, toStdout].map((stream) => ({ level: 'debug' as const, stream }));
    const logger = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, pino.multistream(streams));
    const flush = () => {
      const taken = new Promise<void>((resolve) => stdout.flush(() => resolve()));
      return Promise.race([taken, new Promise<void>((resolve) => setTimeout(resolve, FLUSH_MS).unref())]);
    };
    return { logger, flush };
  } catch (cause) {
    throw new CodedError('DATA_DIR_UNUSABLE', `${file}: ${(cause as Error).message}`, { cause });
  }
}

/** Whether stdout is the journal's. Reference: systemd.exec(5), "$JOURNAL_STREAM". */
function leadsToJournal(env: NodeJS.ProcessEnv): boolean {
  if (env.JOURNAL_STREAM === undefined) return false;
  const { dev, ino } = fstatSync(1);
  return env.JOURNAL_STREAM === `${dev}:${ino}`;
}
