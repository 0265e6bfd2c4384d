/** The log: JSON lines in the data folder, and on stdout readable lines in a terminal or JSON lines anywhere else. */
import { renameSync, statSync } from 'node:fs';
import { Writable } from 'node:stream';
import pino, { type Logger } from 'pino';
import { formatLine } from './log-line.js';

/** A log file that has grown beyond this at a start is set aside; one older generation is kept. */
const FILE_MAX_BYTES = 16 << 20;

export function openLog(file: string, level: string): Logger {
  if ((statSync(file, { throwIfNoEntry: false })?.size ?? 0) > FILE_MAX_BYTES) renameSync(file, `${file}.1`);
  const streams = pino.multistream([
    { level: 'debug', stream: pino.destination({ dest: file, append: true, sync: true, mkdir: true }) },
    { level: 'debug', stream: process.stdout.isTTY ? terminal() : pino.destination({ dest: 1, sync: true }) },
  ]);
  return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, streams);
}

function terminal(): Writable {
  return new Writable({
    write(chunk: Buffer, _encoding, done) {
      process.stdout.write(`${formatLine(chunk.toString('utf8'), true)}\n`);
      done();
    },
  });
}
