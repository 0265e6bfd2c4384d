/** The log: JSON lines in the data folder, and on stdout readable lines in a terminal or JSON lines anywhere else. */
import { renameSync, statSync } from 'node:fs';
import { Writable } from 'node:stream';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import pino, { type Logger } from 'pino';
import { formatLine } from './log-line.js';

/** A log file that has grown beyond this at a start is set aside; one older generation is kept. */
const FILE_MAX_BYTES = 16 << 20;

/** @throws CodedError DATA_DIR_UNUSABLE */
export function openLog(file: string, level: string): Logger {
  try {
    if ((statSync(file, { throwIfNoEntry: false })?.size ?? 0) > FILE_MAX_BYTES) renameSync(file, `${file}.1`);
    const toFile = pino.destination({ dest: file, append: true, sync: true, mkdir: true });
    const toStdout = new Writable({
      write(chunk: Buffer, _encoding, done) {
        const text = chunk.toString('utf8');
        process.stdout.write(process.stdout.isTTY ? `${formatLine(text, true)}\n` : text);
        done();
      },
    });
    // A full disk or a closed terminal costs lines of the log, not the supervisor.
    toFile.on('error', () => {});
    process.stdout.on('error', () => {});
    const streams = [toFile, toStdout].map((stream) => ({ level: 'debug' as const, stream }));
    return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, pino.multistream(streams));
  } catch (cause) {
    throw new CodedError('DATA_DIR_UNUSABLE', `${file}: ${(cause as Error).message}`, { cause });
  }
}
