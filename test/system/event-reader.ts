/** Reads server-sent events as a browser does. */
import { get, type IncomingMessage } from 'node:http';
import { until } from './product.js';

export interface ServerEvent {
  id: string | null;
  name: string;
  data: never;
}

export interface EventReader {
  status: number;
  /** What has come so far. */
  events: ServerEvent[];
  /** Comment lines so far. */
  comments: number;
  /** The first event that fits, when it has come. */
  next(fits: (event: ServerEvent) => boolean): Promise<ServerEvent>;
  /** Resolves when the server has ended the stream. */
  ended: Promise<void>;
  close(): void;
}

export async function readEvents(url: string, headers: Record<string, string> = {}): Promise<EventReader> {
  // A connection of its own: one of a pool may be that of a process that has just died.
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    get(url, { headers, agent: false }, resolve).on('error', reject);
  });
  const reader: EventReader = {
    status: response.statusCode as number,
    events: [],
    comments: 0,
    next: (fits) => until(async () => reader.events.find(fits) ?? null),
    ended: read(),
    close: () => response.destroy(),
  };
  return reader;

  async function read(): Promise<void> {
    let text = '';
    const decoder = new TextDecoder();
    try {
      for await (const chunk of response) {
        text += decoder.decode(chunk as Uint8Array, { stream: true });
        const blocks = text.split('\n\n');
        text = blocks.pop() as string;
        for (const block of blocks) take(block);
      }
    } catch (error) {
      // A stream that was cut off, by us or by the death of a process.
      if (!/aborted|premature close/i.test(String(error))) throw error;
    }
  }

  function take(block: string): void {
    const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(block)?.[1] ?? null;
    const data = field('data');
    if (data === null) reader.comments++;
    else reader.events.push({ id: field('id'), name: field('event') ?? 'message', data: JSON.parse(data) as never });
  }
}
