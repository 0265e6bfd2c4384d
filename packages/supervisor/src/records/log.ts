/** The log: JSON lines in the data folder, and on stdout readable lines in a terminal or JSON lines anywhere else. */
import { Writable } from 'node:stream';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import pino, { type Logger } from 'pino';
import { formatLine } from './log-line.js';
import { RotatingFile } from './rotating-file.js';

/** Size at which the file is set aside, and how many older ones are kept. */
const FILE_MAX_BYTES = 16 << 20;
const OLDER_FILES = 3;

/** @throws CodedError DATA_DIR_UNUSABLE */
export function openLog(file: string, level: string): Logger {
  try {
    const toFile = new RotatingFile(file, FILE_MAX_BYTES, OLDER_FILES, (lines, cause) => {
      const msg = `${lines} lines of this log are lost: ${cause.message}`;
      return `${JSON.stringify({ level: 50, time: new Date().toISOString(), msg })}\n`;
    });
    const toStdout = new Writable({
      write(chunk: Buffer, _encoding, done) {
        const text = chunk.toString('utf8');
        process.stdout.write(process.stdout.isTTY ? `${formatLine(text, true)}\n` : text);
        done();
      },
    });
    // A closed terminal costs its own lines, not the supervisor.
    process.stdout.on('error', () => {});
    const streams = [toFile, toStdout].map((stream) => ({ level: 'debug' as const, stream }));
    return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, pino.multistream(streams));
  } catch (cause) {
    throw new CodedError('DATA_DIR_UNUSABLE', `${file}: ${(cause as Error).message}`, { cause });
  }
}
