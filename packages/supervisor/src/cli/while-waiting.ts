/** What a command waits for, on a terminal: a line that counts seconds, and goes away with the waiting. */
import { cut } from './status-lines.js';

/** What is there sooner needs no line. */
const SOON_MS = 1000;

/** The answer of `work`. `doing`: what it is about at the moment. */
export async function whileWaiting<T>(doing: () => string, work: Promise<T>): Promise<T> {
  const { stderr } = process;
  if (!stderr.isTTY) return work;
  const startMs = performance.now();
  let isShown = false;
  const timer = setInterval(() => {
    const seconds = Math.round((performance.now() - startMs) / 1000);
    // The last column would wrap.
    stderr.write(`\r\x1b[K${cut(`${doing()}, ${seconds} s`, (stderr.columns ?? 80) - 1)}`);
    isShown = true;
  }, SOON_MS);
  try {
    return await work;
  } finally {
    clearInterval(timer);
    if (isShown) stderr.write('\r\x1b[K');
  }
}
