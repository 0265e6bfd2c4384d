/** `status --watch`: the whole screen, drawn anew twice a second. */

import { CodedError } from '@qwen-supervisor/protocol/errors';
import { answered, type Client, connect } from './client.js';
import { cut, screenLines } from './status-lines.js';

const EVERY_MS = 500;
/** A terminal's other screen, without a cursor; and back. Reference: xterm control sequences, DECSET 1049 and 25. */
const ENTER = '\x1b[?1049h\x1b[?25l';
const LEAVE = '\x1b[?25h\x1b[?1049l';

/** Resolves when the user has seen enough. A supervisor that goes away is waited for. */
export async function watchStatus(dataDir: string): Promise<void> {
  const { stdin, stdout } = process;
  let client: Client | null = null;
  let wake: () => void = () => {};
  let isOver = false;
  const look = () => wake();
  let tellEnd: () => void = () => {};
  const ended = new Promise<null>((resolve) => {
    tellEnd = () => resolve(null);
  });
  const end = () => {
    isOver = true;
    tellEnd();
    wake();
  };
  /** A supervisor that stands still keeps nobody here. */
  const orEnd = <T>(answer: Promise<T>) => Promise.race([answer, ended]);
  const onKey = (bytes: Buffer) => {
    // q, Ctrl+C, Ctrl+D and Escape: raw mode has no signals.
    if (['q', '\x03', '\x04', '\x1b'].includes(bytes.toString('latin1'))) end();
  };
  // The first has to be there: else there is nothing to look at.
  client = await connect(dataDir);
  stdout.write(ENTER);
  stdin.setRawMode(true).on('data', onKey).resume();
  stdout.on('resize', look);
  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT'] as const) process.once(signal, end);
  try {
    while (!isOver) {
      const woken = new Promise<void>((resolve) => {
        wake = resolve;
      });
      let lines: string[];
      try {
        client ??= await orEnd(connect(dataDir));
        const snapshot = client && (await orEnd(answered(client.pid, client.link.request('snapshot', {}))));
        if (snapshot === null) break;
        lines = screenLines(snapshot, stdout.rows, stdout.columns, Date.now());
      } catch (error) {
        if (!(error instanceof CodedError)) throw error;
        client?.link.close();
        client = null;
        const said = [
          `${error.code}: ${error.message}`,
          error.hint,
          '',
          'looking again until it is back; q ends this view',
        ];
        lines = said.map((line) => cut(line, stdout.columns));
      }
      // Each line ends with what clears the rest of it: nothing flickers.
      stdout.write(`\x1b[H${lines.map((line) => `${line}\x1b[K`).join('\n')}\x1b[J`);
      const timer = setTimeout(look, EVERY_MS);
      await woken;
      clearTimeout(timer);
    }
  } finally {
    stdin.setRawMode(false).off('data', onKey).pause();
    stdout.write(LEAVE);
    client?.link.close();
  }
}
