/**
 * The events of the server, over `fetch`: an EventSource stops for good at the first answer that is none, and cannot
 * begin at a cursor.
 */
import { createParser } from 'eventsource-parser';
import { open } from './http';

/** The server says something every 15 s; one that has not for longer is gone. */
const SILENCE_MS = 37_500;

export interface Told {
  name: string;
  data: unknown;
  /** Cursor after this event; null for the parts of one. */
  id: string | null;
}

/**
 * Reads events of `path` until the connection ends or is given up.
 * @throws ApiError, or what ended it
 */
export async function readEvents(
  path: string,
  signal: AbortSignal,
  on: { open(): void; event(told: Told): void },
): Promise<void> {
  const silent = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silent.abort(new Error('nothing was heard')), SILENCE_MS);
  };
  const parser = createParser({
    onEvent: ({ event = 'message', data, id }) => on.event({ name: event, data: JSON.parse(data), id: id ?? null }),
  });
  heard();
  try {
    const response = await open('GET', path, {
      headers: { accept: 'text/event-stream' },
      signal: AbortSignal.any([signal, silent.signal]),
    });
    on.open();
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    const decoder = new TextDecoder();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      parser.feed(decoder.decode(value, { stream: true }));
    }
  } finally {
    clearTimeout(timer);
  }
}
